"""Interim."""


async def open_participant(name, store, journal, mapping):
    from coordinator.participants.mongo_interim.driver import open_driver
    from coordinator.participants.mongo_interim.participant import MongodbParticipant

    one = MongodbParticipant(name, open_driver(store.uri.get_secret_value(), store.database, store.driver), journal.journal_id)
    await one.prepare([e.table for e in mapping.entities.values() if e.store == name])
    return one
