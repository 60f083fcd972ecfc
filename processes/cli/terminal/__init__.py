"""What every verb shows and reads on a terminal: output, errors, options, completion."""
