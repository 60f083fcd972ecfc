"""The bounded, replayable queues between the other processes."""
