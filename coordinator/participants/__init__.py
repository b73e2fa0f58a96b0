"""Adapters that read, write and undo in one store each; a driver is named in one of them only."""
