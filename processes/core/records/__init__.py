"""What is kept: one file a kind of record, with its states and what may become of it. Pure."""
