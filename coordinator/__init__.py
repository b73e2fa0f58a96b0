"""The coordinator: applies units of work over PostgreSQL and MongoDB, submitted by Kafka.

Holds the version and nothing else, so that importing any part imports no other part.
"""

__version__ = "0.1.0"
