"""The module that registers a user's environment: who names it, where it lies, what hides it."""

import contextlib
import importlib.util
import sys
from collections.abc import Collection
from pathlib import Path

from impala_redis.common.errors import ConfigError
from impala_redis.common.run.spec import module_of


def check_module(env_id: str, trusted: Collection[str]) -> None:
    """Refuses a module that only Redis or a checkpoint has named. Raises ConfigError."""
    module = module_of(env_id)
    if module and module not in trusted:
        raise ConfigError(
            f"the run's environment {env_id} is made by the module {module!r}, which nobody here "
            f"has named; if you trust it, add --env-module {module}"
        )


def look_in_working_directory(env_id: str) -> None:
    """Lets `module:Id` be found in the working directory, after every other place.

    A file there can never take the place of an installed package.
    """
    if not module_of(env_id):
        return
    with contextlib.suppress(OSError):  # the folder is gone
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)


def hidden_neighbours(env_id: str) -> str:
    """What stands beside the module and is found elsewhere first, as the end of a sentence.

    Empty if there is nothing: then the module's own error says all.
    """
    folder = _folder_of(module_of(env_id).partition(".")[0])
    try:
        neighbours = sorted(folder.iterdir()) if folder else []
    except OSError:  # it may be entered, but not listed
        return ""
    for path in neighbours:
        found = getattr(sys.modules.get(path.stem), "__file__", None)
        is_importable = path.suffix == ".py" or (path / "__init__.py").exists()
        if found and is_importable and folder not in list(Path(found).parents)[:2]:
            return f" ({path.name} beside it is hidden by {found}; rename it)"
    return ""


def _folder_of(module: str) -> Path | None:
    """The folder in which a module lies; None if it is not found."""
    try:
        origin = getattr(importlib.util.find_spec(module), "origin", None) if module else None
    except (ImportError, ValueError):
        return None
    if origin is None or not Path(origin).exists():
        return None
    path = Path(origin)
    return path.parents[1] if path.name == "__init__.py" else path.parent
