"""The pure heart: units, values, plans, decisions and the life cycle.

Nothing here knows a driver, a clock, a loop or a source of randomness; whatever is drawn or
measured comes in as an argument, so every decision can be tried without a server.
"""
