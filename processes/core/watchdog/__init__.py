"""The decisions of the watchdog: the verdict on a process, what to do about it, the life of an incident. Pure."""
