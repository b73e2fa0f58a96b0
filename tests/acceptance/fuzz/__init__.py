"""Hostile messages by the thousand: a grammar that makes them, and an oracle that judges them."""
