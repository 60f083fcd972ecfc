"""PostgreSQL, for a fleet that is more than one machine: the truth, the hub's lease and the queues in one place.

Only what has `store.url` or `queues.url` in its settings imports anything of this room: psycopg comes with the extra
`postgres`.
"""
