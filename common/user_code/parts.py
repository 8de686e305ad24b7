"""A part of a run that is a user's own class or function: `module:name`, imported where trusted."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from impala_redis.common.errors import ConfigError, UnsupportedEnvironment, printable
from impala_redis.common.settings.env_id import split
from impala_redis.common.user_code import failures, modules


def imported(named: str, what: str) -> Callable[..., Any]:
    """The class or function of the user's that `module:name` or `path/to/file.py:name` names.

    Args:
      named: where it is; whoever calls has made sure that the user trusts it.
      what: the word for it in messages, such as "wrapper".

    Raises ConfigError: it is not there, cannot be imported, or cannot be called.
    """
    shown = printable(named)
    module, name = split(named)
    if not module or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"the {what} {shown!r} must be module:name or path/to/file.py:name")
    try:
        module, _ = split(modules.make_findable(named))
    except UnsupportedEnvironment as error:
        raise ConfigError(f"the {what} {shown} cannot be found: {error}") from error
    try:
        found: Any = importlib.import_module(module)
    except BaseException as error:  # of the user's own code
        failure = ConfigError(
            f"the {what} {shown} cannot be imported: {failures.what(error)}"
            f"{failures.where(error)}{modules.way_to_module(module, error)}"
        )
        failure.frames = failures.frames(error)
        raise failure from error
    for part in name.split("."):
        found = getattr(found, part, None)
    part_found: Callable[..., Any] | None = found if callable(found) else None
    if part_found is None:
        raise ConfigError(
            f"the module {module!r} has no class or function {name!r}; name the {what} as it is "
            "written there"
        )
    return part_found


def arguments_of(made_by: Callable[..., Any] | None) -> list[str]:
    """The names of the arguments that a class or function takes; none where they are unknown."""
    try:
        parameters = inspect.signature(made_by).parameters.values() if made_by else ()
    except (TypeError, ValueError):  # of code in C
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one.name for one in parameters if one.kind in kinds]
