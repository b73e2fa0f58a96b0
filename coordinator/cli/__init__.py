"""The commands: thin, each one asks for what it needs and shows what came of it.

They import what is heavy only when they run, so that ``--help`` and ``version`` are quick. Results
go to stdout, as tables on a terminal and as JSON lines otherwise; faults go to stderr. Exit codes:
0 success, 1 failure, 2 wrong configuration or usage.
"""
