"""``python -m coordinator.demo --units 500 --seed 7``: another day, or a shorter one."""

import argparse
import sys

from coordinator.demo.main import SEED, UNITS, main

_parser = argparse.ArgumentParser(prog="python -m coordinator.demo", description=__doc__)
_parser.add_argument("--units", type=int, default=UNITS, help="how many units (at least 100)")
_parser.add_argument("--seed", type=int, default=SEED, help="the same seed gives the same day")
_parser.add_argument("--stay", action="store_true", help="keep all running until Ctrl-C")
_given = _parser.parse_args()
if _given.units < 100:
    _parser.error("--units must be at least 100")
sys.exit(main(_given.units, _given.seed, stay=_given.stay))
