"""``coordinator bench``: finds the benchmarks beside the package, where a checkout has them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import coordinator
from coordinator.domain.errors import CoordinatorError

CHECKOUT: Final = Path(coordinator.__file__).parents[1]


class BenchmarksMissing(CoordinatorError):
    """The package is installed without the repository that it was made from."""


def bench(
    *,
    repeats: int | None,
    quick: bool,
    with_variants: bool,
    only: tuple[str, ...],
    driver: str,
    json_file: Path | None,
) -> int:
    """Run the benchmarks and give the exit code; raises `BenchmarksMissing`."""
    if not (CHECKOUT / "benchmarks" / "main.py").exists():
        raise BenchmarksMissing(
            "The benchmarks are in the repository and not in the installed package;"
            " run this command from a checkout, after `make install`."
        )
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    from benchmarks.main import main
    from benchmarks.options import REPEATS, Options

    return main(
        Options(
            repeats=repeats or (1 if quick else REPEATS),
            quick=quick,
            with_variants=with_variants,
            only=only,
            driver=driver,
            json_file=json_file,
        )
    )
