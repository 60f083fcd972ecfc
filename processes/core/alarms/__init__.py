"""Alarms: which conditions stand, and who is told of them when. Pure. Used by watchdog, sender and command line."""
