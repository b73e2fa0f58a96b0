"""Domain values to BSON and back (interim)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from bson.binary import Binary, UuidRepresentation
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId

from coordinator.domain.entity import FieldType
from coordinator.domain.values import Alien, JsonText

T=FieldType
W={T.STRING:str,T.INTEGER:Int64,T.DECIMAL:Decimal128,T.FLOAT:float,T.BOOLEAN:bool,T.TIMESTAMP:lambda v:v,T.DATE:lambda v: datetime.combine(v,time(),UTC),T.UUID:lambda v:Binary.from_uuid(v,UuidRepresentation.STANDARD),T.BINARY:bytes,T.JSON:orjson.loads,T.OBJECTID:ObjectId}
def to_bson(t,v): return None if v is None else W[t](v)
def shown(s,in_json=False):
    if s is None or isinstance(s,str|bool): return s
    if isinstance(s,int): return int(s) if in_json or abs(s)<2**53 else str(int(s))
    if isinstance(s,float): return s if s-s==0 else str(s)
    if isinstance(s,Mapping): return {str(k):shown(v,in_json) for k,v in s.items()}
    if isinstance(s,list): return [shown(v,in_json) for v in s]
    if isinstance(s,datetime): return s.astimezone(UTC).replace(tzinfo=None).isoformat()+"Z"
    if isinstance(s,bytes): return base64.b64encode(s).decode()
    return str(s)
def _int(s): return None if isinstance(s,bool) else int(s) if isinstance(s,int) or (isinstance(s,float) and s.is_integer()) else None
def _dec(s): return s.to_decimal() if isinstance(s,Decimal128) and s.to_decimal().is_finite() else None
ex=lambda k: lambda s: s if type(s) is k else None
R={T.STRING:ex(str),T.INTEGER:_int,T.DECIMAL:_dec,T.FLOAT:ex(float),T.BOOLEAN:ex(bool),T.TIMESTAMP:lambda s: s if isinstance(s,datetime) else None,T.DATE:lambda s: s.date() if isinstance(s,datetime) else None,T.UUID:lambda s: UUID(bytes=bytes(s)) if isinstance(s,Binary) and len(s)==16 else None,T.BINARY:lambda s: s if isinstance(s,bytes) else None,T.JSON:lambda s: JsonText(orjson.dumps(shown(s,True)).decode()),T.OBJECTID:lambda s:str(s) if isinstance(s,ObjectId) else None}
def from_bson(t,s):
    if s is None: return None
    v=R[t](s)
    return Alien(shown(s)) if v is None else v
