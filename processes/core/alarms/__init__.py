"""Alarms: which conditions stand, who is told what and when. Pure. Used by the watchdog, the sender and the command
line.
"""
