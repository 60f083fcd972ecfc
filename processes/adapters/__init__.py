"""Input and output that several processes share. No decisions are made here."""
