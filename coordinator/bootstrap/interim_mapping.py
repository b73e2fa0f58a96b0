"""(interim) entities.toml + live columns -> Mapping."""
from __future__ import annotations
import re, tomllib
from dataclasses import replace
from coordinator.domain.entity import *
from coordinator.domain.operation import OperationKind
from coordinator.domain.mapping_json import make_mapping
from coordinator.domain.values import read_value, MONGODB_LIMITS
from coordinator.domain.errors import ConfigurationInvalid
INT={"smallint":(-2**15,2**15-1),"integer":(-2**31,2**31-1),"bigint":(-2**63,2**63-1)}
async def columns(connection, schema, table):
    rows=await connection.fetch("""select a.attname::text n, format_type(a.atttypid,a.atttypmod) t, a.attgenerated<>'' g, a.attidentity<>'' i from pg_attribute a join pg_class c on c.oid=a.attrelid join pg_namespace s on s.oid=c.relnamespace where s.nspname=$1 and c.relname=$2 and a.attnum>0 and not a.attisdropped order by a.attnum""",schema,table)
    return tuple(Column(r["n"],r["t"],r["g"],r["i"]) for r in rows)
def limits(t):
    if t in INT: return Limits(integer_min=INT[t][0],integer_max=INT[t][1])
    m=re.match(r"numeric\((\d+),(-?\d+)\)",t)
    if m: return Limits(precision=int(m[1]),scale=int(m[2]))
    m=re.match(r"(?:character varying|character)\((\d+)\)",t)
    if m: return Limits(length=int(m[1]))
    if t=="real": return Limits(single_float=True)
    return Limits()
async def load(settings, connections):
    raw=tomllib.loads(settings.entities.read_text()); out=[]
    for name,e in raw.items():
        st=settings.stores[e["store"]]; kind=StoreKind(st.kind); schema=None; cols=()
        table=e.get("table") or e.get("collection")
        if kind is StoreKind.POSTGRESQL:
            schema,_,table=("public."+table if "." not in table else table).partition(".")
            cols=await columns(connections[e["store"]],schema,table)
            if not cols: raise ConfigurationInvalid([f"{name}: no table {schema}.{table}"])
        by={c.name:c for c in cols}; fields={}
        for fn,f in e["fields"].items():
            t=FieldType(f["type"])
            if cols and fn not in by: raise ConfigurationInvalid([f"{name}.{fn}: no column"])
            F=Field(fn,t,nullable=f.get("nullable",False),max_length=f.get("max_length"),pattern=f.get("pattern"),read_only=f.get("read_only",False),limits=limits(by[fn].type) if cols else MONGODB_LIMITS[t])
            val=lambda v: read_value(F,kind,str(v) if t is FieldType.DECIMAL and isinstance(v,float) else v)
            kw={k:val(f[k]) for k in ("min","max") if k in f}
            if "enum" in f: kw["enum"]=tuple(val(v) for v in f["enum"])
            if "default" in f:
                g="uuid7" if t is FieldType.UUID and f["default"]=="uuid7" else "now" if t is FieldType.TIMESTAMP and f["default"]=="now" else None
                kw.update(has_default=True,default_generator=g,default=None if g else val(f["default"]))
            fields[fn]=replace(F,**kw)
        out.append(Entity(name,e["store"],kind,schema,table,e["key"],fields,e.get("key_default"),e.get("version"),frozenset(OperationKind(o) for o in e.get("operations",list(OperationKind))),ForeignWritePolicy(e.get("on_foreign_write","park")),tuple(Reference(k,v.split(".")[0]) for k,v in e.get("references",{}).items()),cols))
    return make_mapping(out)
