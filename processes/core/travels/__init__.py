"""Messages between processes, agents and operators: their types, limits and encoding. Pure."""
