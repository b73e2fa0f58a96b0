"""Kafka's jars: fetched once, kept for all projects of this user; or those of a Kafka on PATH.

Owns the class path and nothing else. The jars are resolved by `jgo` from the coordinates below,
into the user's cache folder; a file beside them lists the class path, so that later starts read one
file.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from coordinator.devstack.errors import DevstackUnavailable
from coordinator.devstack.programs import INSTALL_EXTRA, has_module

KAFKA_VERSION = "4.2.0"
KAFKA_OLDEST = 4

KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# Kafka brings log4j's core, but not the bridge that makes Kafka write into it. Resolved apart: in
# one resolution the bridge's list of versions would replace Kafka's own, down to older Kafka jars.
LOG_BRIDGE = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3"


def class_path(report: Callable[[str], None]) -> tuple[list[Path], str]:
    """Return Kafka's jars and a word on where they come from.

    May fetch about 45 MB the first time; `report` then gets a line before the wait begins.
    """
    if has_module("jgo"):
        return _resolved(report), f"{KAFKA_VERSION} from its jars"
    on_path = _on_path()
    if on_path is not None:
        return on_path
    raise DevstackUnavailable(
        f"No Kafka was found: neither the wheel `jgo` nor version {KAFKA_OLDEST} on PATH.",
        f"{INSTALL_EXTRA}, or put `kafka-server-start.sh` on PATH.",
    )


def _resolved(report: Callable[[str], None]) -> list[Path]:
    folder = _cache_folder()
    listing = folder / f"kafka-{KAFKA_VERSION}.classpath"
    with open(folder / "lock", "w") as lock:
        # Two stacks that start for the first time together: one fetches, the other waits.
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = _read(listing)
        if jars is None:
            report(f"kafka: fetching the jars of Kafka {KAFKA_VERSION}, once (about 45 MB)")
            jars = _fetch(folder)
            listing.write_text("\n".join(map(str, jars)))
    return jars


def _read(listing: Path) -> list[Path] | None:
    if not listing.exists():
        return None
    jars = [Path(line) for line in listing.read_text().splitlines()]
    return jars if jars and all(jar.exists() for jar in jars) else None


def _fetch(folder: Path) -> list[Path]:
    import jgo

    try:
        kafka = jgo.build(KAFKA, cache_dir=folder / "jars").path
        bridge = jgo.build(LOG_BRIDGE, cache_dir=folder / "jars").path
    # jgo passes on whatever its HTTP client and its resolver raise.
    except Exception as error:
        raise DevstackUnavailable(
            f"The jars of Kafka {KAFKA_VERSION} could not be fetched: {error}.",
            "check the network and try again, or give Kafka's address instead.",
        ) from error
    # jgo sorts them by whether Java could load them as modules; on one class path all are equal.
    jars = [*kafka.glob("jars/*.jar"), *kafka.glob("modules/*.jar")]
    jars += bridge.glob("*/log4j-slf4j-impl-*.jar")
    if not any(jar.name == f"kafka-clients-{KAFKA_VERSION}.jar" for jar in jars):
        raise DevstackUnavailable(
            "Kafka's jars were not resolved to one version.", f"remove {folder} and try again."
        )
    return sorted(jars)


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "coordinator"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _on_path() -> tuple[list[Path], str] | None:
    script = shutil.which("kafka-server-start.sh") or shutil.which("kafka-server-start")
    if script is None:
        return None
    jars = sorted((Path(script).resolve().parent.parent / "libs").glob("*.jar"))
    names = (re.match(r"kafka_2\.\d+-(\d+)\.([\d.]+)\.jar", jar.name) for jar in jars)
    version = next((name for name in names if name), None)
    if version is None or int(version.group(1)) < KAFKA_OLDEST:
        return None
    return jars, f"{version.group(1)}.{version.group(2)} from PATH"
