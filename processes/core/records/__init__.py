"""The records that are kept: one file for each kind, with its states and transitions. Pure."""
