"""The demonstration: a small shop on real servers, watched, interrupted and then checked.

Owns its own servers, databases and daemon, in a folder that is gone afterwards, and looks at the
product as a stranger would: through the client, the topics, HTTP and the two stores. Refuses to
know anything of the daemon's inside, so that what it shows is what a user gets.

    shop, mishaps     what is sent: pure and seeded
    stage             servers and daemon, as processes
    stores, topics    what was there before and after, and what was published
    run               the acts
    checks            what must hold, as plain functions over what was read
    report, stories   what you read on the terminal
"""

from coordinator.demo.main import main

__all__ = ["main"]
