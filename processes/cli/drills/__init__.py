"""Drills: failures rehearsed on a running installation.

programme plays several drills, and rehearsal one round of one. stage is the installation with the agents and the
operator that a drill brings along; scene is a round's moments; stream gives commands meanwhile; faults and conditions
break things.
"""
