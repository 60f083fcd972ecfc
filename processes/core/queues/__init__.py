"""The bounded, replayable queues and the calls to them. Pure."""
