"""The version, in one place: `setup.py` reads it, `txregistry version` and the start-up log show it."""

__version__ = "0.1.0"
