"""Conditions of hosts: which stand by the rules, which have one cause, and which nobody is to be told. Pure."""
