"""The library: one idea a file. Nothing here knows click, a terminal or the programs."""

__version__ = "0.1.0"
