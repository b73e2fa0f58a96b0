"""The composition root: the only place that knows concrete classes."""

from coordinator.bootstrap.daemon import run_daemon as run_daemon
