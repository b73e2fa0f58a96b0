"""The engine's ports in memory: one world that several workers share, and no server.

Owns a second implementation of `coordinator.engine.ports` that keeps the same promises: one method
is one atomic step on the `World`, durable as soon as it has happened, whatever becomes of the
caller. How a call travels there and back, and what goes wrong on the way, is the `Link`'s: the
direct one loses nothing, that of the simulation does. Refuses to know Kafka, time and chance.

The journal mirrors ``coordinator/journal/migrations`` and its adapters statement by statement; a
participant mirrors the rules of both real ones. What it decides with is the domain's own code.
"""
