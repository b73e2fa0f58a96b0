"""Those who are compared: each does the same transfer in its own way."""
