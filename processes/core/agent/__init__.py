"""The decisions of an agent: what it answers, runs, reports and forgets. Pure. Start with step.py."""
