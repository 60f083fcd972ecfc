"""The decisions of the hub: one event in, effects out. Pure. Start with step.py."""
