"""What travels between processes, agents and operators: types, limits, encoding. Pure."""
