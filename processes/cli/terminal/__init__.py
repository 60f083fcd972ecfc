"""What all verbs share on a terminal: output, errors, options, completion."""
