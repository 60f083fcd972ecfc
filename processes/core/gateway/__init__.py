"""The decisions of a gateway: what an agent's frames mean, who may come in, what waits for the hub. Pure."""
