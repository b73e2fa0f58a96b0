"""The straight line: the coordinator's protocol end to end, without any of its logic.

What the protocol writes and sends, with as few statements and as little Python as we know how:
batches from Kafka; units, locks and position in one statement; documents and undo records in one
MongoDB transaction; rows, statuses, outcomes, released locks and a packed outbox row in one more
statement; ready-made batches to Kafka. The stages overlap. There is no check, no refusal, no
deadline, no fence, no recovery, no lock that anybody waits for: it relies on a load in which no
two open units share a key. It is no product. It is the limit that the product is measured against.

    __main__     the process
    line         the stages, one behind the other
    units        a unit on its way (pure)
    journal      what is written to PostgreSQL
    documents    what is written to MongoDB
    messages     what is published (pure)
"""

from typing import Final

READY: Final = "the straight line is ready"
