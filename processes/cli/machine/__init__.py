"""What the command line does to this machine: starts and ends processes, makes folders and tokens, looks at ports."""
