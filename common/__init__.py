"""The library: ideas without a process. Nothing here knows click, signals or the programs."""

__version__ = "0.1.0"
