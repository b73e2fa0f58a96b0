"""The epoch of a worker's admissions: what makes a lost one conclude (rule 1).

An admission whose answer was lost may still be on its way. Before the worker looks at what it
owns, it begins a new epoch in the journal: an earlier admission has been done by then, and is
seen, or will be refused (I7, I11).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Epoch:
    """The present epoch of one worker, shared by its admissions and its questions."""

    number: int = 0
