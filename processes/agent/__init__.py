"""One fleet server: metrics, running commands, their journal."""
