"""The decisions of a fanout: how its copy of the state follows the hub, which frames each subscriber gets, who may sign
in. Pure.
"""
