"""The operators' WebSockets, HTTP API, page and metrics; a replica of the truth."""
