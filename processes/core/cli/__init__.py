"""The decisions of the command line: what drills must show, and what a restored backup means. Pure."""
