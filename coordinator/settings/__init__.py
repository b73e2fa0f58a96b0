"""The settings: one frozen value, made from a TOML file and what overrides it (DESIGN 2.5).

``load_settings`` gathers file, secrets files, environment and command line, in this order, and
raises `ConfigurationInvalid` with every mistake and its place. No setting is read anywhere else.
``python -m coordinator.settings`` writes the reference page.
"""

from coordinator.settings.connections import Connection, connections
from coordinator.settings.loading import load_settings
from coordinator.settings.models import MongodbStore, PostgresqlStore, Settings, Store

__all__ = [
    "Connection",
    "MongodbStore",
    "PostgresqlStore",
    "Settings",
    "Store",
    "connections",
    "load_settings",
]
