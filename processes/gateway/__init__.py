"""The agents' WebSockets: who is connected, and nothing else."""
