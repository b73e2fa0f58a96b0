"""The process around the engine: supervised tasks, signals, health, metrics and the HTTP port.

Owns how the daemon lives and leaves. It knows no driver and no table: what it runs and what it
asks about units comes in from `coordinator.bootstrap`.
"""
