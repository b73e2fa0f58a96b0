"""What the acceptance tests stand on: a world with a daemon in it, seen from outside only."""
