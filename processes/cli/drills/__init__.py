"""Failures rehearsed on a running installation: the stage (who watches), the faults (what is broken), the rehearsal (a
round).
"""
