"""The decisions of a fanout: how its copy of the state follows the hub, what each subscriber is sent, who may sign in.
Pure.
"""
