"""Faults on purpose: every fault point, against real servers and real processes."""
