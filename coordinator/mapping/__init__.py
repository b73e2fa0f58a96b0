"""The mapping: which entity is which table or collection, read from TOML and compared live.

Three steps: ``load_entities`` reads the declarations (no server needed), the catalog readers say
what the stores hold, and ``resolve`` compares the two and gives the domain's `Mapping`. Each raises
`ConfigurationInvalid` with every mistake and its place (F35).
"""

from coordinator.mapping.catalog import Catalog, MongodbCatalog, PostgresqlCatalog
from coordinator.mapping.declaration import Declaration
from coordinator.mapping.mongodb_catalog import MongodbServer
from coordinator.mapping.mongodb_catalog import read_catalog as read_mongodb_catalog
from coordinator.mapping.postgresql_catalog import read_catalog as read_postgresql_catalog
from coordinator.mapping.reading import load_entities
from coordinator.mapping.resolve import Resolution, resolve, tables_of

__all__ = [
    "Catalog",
    "Declaration",
    "MongodbCatalog",
    "MongodbServer",
    "PostgresqlCatalog",
    "Resolution",
    "load_entities",
    "read_mongodb_catalog",
    "read_postgresql_catalog",
    "resolve",
    "tables_of",
]
