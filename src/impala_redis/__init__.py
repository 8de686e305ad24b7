"""IMPALA with V-trace: independent actors and learners that talk only through Redis.

`load` gives a trained policy in one line (docs/your-policy.md); all else is for the programs.

The folders `common` and `workers` are packages of this one, by two links beside this file. As
top-level packages they would collide with files of the same names, a user's or another package's.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impala_redis.common.errors import ImpalaError
    from impala_redis.common.playing.trained import Policy, load

__version__ = "0.2.0.dev0"
__all__ = ["ImpalaError", "Policy", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """What `__all__` names is imported when it is first asked for: programs start without it."""
    if name in ("Policy", "load"):
        from impala_redis.common.playing import trained

        return getattr(trained, name)
    if name == "ImpalaError":
        from impala_redis.common.errors import ImpalaError

        return ImpalaError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
