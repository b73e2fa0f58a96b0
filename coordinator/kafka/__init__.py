"""Kafka: where units come from and where everything that we publish goes.

`intake` reads units, `relay` publishes the outbox, `topics` checks and makes topics. Owns every use
of aiokafka; its traps and how each is avoided stand in the module that meets them. Refuses to look
into a record or to build a message: records go to the engine as they are, messages come ready.
"""
