"""(interim) settings."""
from __future__ import annotations
import os, tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Annotated, Literal
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from coordinator.domain.errors import ConfigurationInvalid
class _M(BaseModel):
    model_config=ConfigDict(extra="forbid",frozen=True)
class Journal(_M):
    store: str|None=None
    dsn: SecretStr|None=None
    migrate: bool=True
class Kafka(_M):
    bootstrap_servers: str="127.0.0.1:9092"
    group_id: str="coordinator"
class Topics(_M):
    units: str="coordinator.units"; outcomes: str="coordinator.outcomes"; changes: str="coordinator.changes.{entity}"; dead_letters: str="coordinator.units-dlt"
    reply_to: tuple[str,...]=(); create: bool=True; partitions:int=4; replication_factor:int=1
class Units(_M):
    timeout_ms:int=30000; max_bytes:int=262144; retention_days: float=7
class Worker(_M):
    name:str="worker"; lease_ttl_seconds: float=15; lanes:int=2
class Batch(_M):
    max_units:int=300
class Backlog(_M):
    max_units:int=20000
class Http(_M):
    listen:str="127.0.0.1:8080"
class Log(_M):
    format: Literal["json","console"]="json"; level: Literal["debug","info","warning","error"]="info"
class Changes(_M):
    tombstones: bool=False
class PostgresqlStore(_M):
    kind: Literal["postgresql"]; dsn: SecretStr
class MongodbStore(_M):
    kind: Literal["mongodb"]; uri: SecretStr; database: str; driver: Literal["motor","pymongo"]="motor"
class Settings(_M):
    entities: Path
    journal: Journal; kafka: Kafka=Kafka(); topics: Topics=Topics(); units: Units=Units(); worker: Worker=Worker(); batch: Batch=Batch(); backlog: Backlog=Backlog(); http: Http=Http(); log: Log=Log(); changes: Changes=Changes()
    stores: dict[str, Annotated[PostgresqlStore|MongodbStore, Field(discriminator="kind")]]
    def redact(self,text:str)->str: return text
def load_settings(config=None, overrides: Mapping[str,object]={}, environ=os.environ)->Settings:
    path=Path(config or environ.get("COORDINATOR_CONFIG") or "config/coordinator.toml")
    raw=tomllib.loads(path.read_text())
    def put(k,v):
        at=raw
        *p,l=k
        for x in p: at=at.setdefault(x,{})
        at[l]=v
    for k,v in environ.items():
        if k.startswith("COORDINATOR_") and "__" in k: put(k[12:].lower().split("__"),v)
    for k,v in overrides.items(): put(k.split("."),v)
    raw["entities"]=str(path.parent/raw["entities"])
    try: return Settings.model_validate(raw)
    except ValidationError as e: raise ConfigurationInvalid([f"{path}: {'.'.join(map(str,x['loc']))}: {x['msg']}" for x in e.errors()])
