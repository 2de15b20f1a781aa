"""One chunk, from its claim to its close."""
