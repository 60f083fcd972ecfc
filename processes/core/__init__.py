"""The thinking room: pure, same input, same output. No clock, file, socket, log or randomness."""
