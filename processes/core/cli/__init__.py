"""The decisions of the command line: what drills must show, what a restored backup means. Pure."""
