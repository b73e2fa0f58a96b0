"""The journal: our own tables in PostgreSQL, schema ``coordinator``.

It owns the units, their locks, the intake positions, the outbox and the workers; every method
of its classes is one transaction, and what decides a unit's fate is a compare-and-set on its
row. It knows nothing of the data tables: the pivot's data part is given to it as a port.
"""
