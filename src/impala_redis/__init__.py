"""IMPALA with V-trace: independent actors and learners that talk only through Redis.

The folders `common` and `workers` are packages of this one, by two links beside this file. As
top-level packages they would collide with files of the same names, a user's or another package's.
"""

__version__ = "0.2.0.dev0"
