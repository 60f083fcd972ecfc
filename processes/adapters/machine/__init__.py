"""What is done on a server for its agent: its code is exchanged for a token, its systemd gets a unit."""
