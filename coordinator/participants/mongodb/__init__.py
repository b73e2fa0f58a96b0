"""MongoDB: a participant that applies and undoes branches in the collections of one database.

`participant.MongodbParticipant` is the adapter; `driver.open_driver` opens what it speaks through,
Motor or PyMongo's own async client. Decisions are pure and live in `images`, `branches`, `changes`,
`writes`, `undo_record` and `undo`; nothing there knows a client.
"""
