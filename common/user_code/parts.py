"""A part of a run that is a user's own class or function: `module:name`, imported where trusted."""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from impala_redis.common.errors import ConfigError, UnsupportedEnvironment, printable
from impala_redis.common.settings.env_id import split
from impala_redis.common.user_code import failures, modules


def imported(named: str, what: str) -> Callable[..., Any]:
    """The class or function of the user's that `module:name` or `path/to/file.py:name` names.

    Args:
      named: where it is; whoever calls has made sure that the user trusts it.
      what: the word for it in messages, such as "wrapper".

    What the module has imported from elsewhere is none of its own: whoever trusts a module for a
    network would else trust all that it imports, down to the start of programs.

    Raises ConfigError: it is not there, cannot be imported, is no class or function, or is defined
    neither in that module nor in a module of that package.
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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of the user's own code
        failure = ConfigError(
            f"the {what} {shown} cannot be imported: {failures.what(error)}"
            f"{failures.where(error)}{modules.way_to_module(module, error)}"
        )
        failure.frames = failures.frames(error)
        raise failure from error
    return _found(found, name, what)


def _found(module: ModuleType, name: str, what: str) -> Callable[..., Any]:
    """The module's own class or function of that name, dotted inside a class. Raises ConfigError.

    Nothing is called, and no other module is walked through.
    """
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
        if inspect.ismodule(found):
            raise ConfigError(
                f"the {what} {printable(name)!r} leads through {module.__name__!r} into the module "
                f"{found.__name__!r}; name the {what} by the module that defines it"
            )
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise ConfigError(
            f"the module {module.__name__!r} has no class or function {name!r}; name the {what} as "
            "it is written there"
        )
    home = str(found.__module__)
    if home != module.__name__ and not home.startswith(f"{module.__name__}."):
        raise ConfigError(
            f"the {what} {name!r} is not defined in {module.__name__!r}, which only imports it; "
            f"name it by the module that defines it, as in {home}:{found.__qualname__}"
        )
    made_by: Callable[..., Any] = found
    return made_by


def arguments_of(made_by: Callable[..., Any] | None) -> list[str]:
    """The names of the arguments that a class or function takes; none where they are unknown."""
    try:
        parameters = inspect.signature(made_by).parameters.values() if made_by else ()
    except (TypeError, ValueError):  # of code in C
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one.name for one in parameters if one.kind in kinds]
