"""PostgreSQL: mapped tables, and a participant for the stores that do not hold the journal.

`tables.Tables` reads and writes mapped tables inside a transaction of the caller's; the journal's
pivot is given one, and `participant.PostgresParticipant` uses another with undo records and
fences around it.
"""
