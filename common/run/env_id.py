"""How an environment is named: `Id`, `module:Id`, or `path/to/module.py:Id` for a file.

A file is one machine's own, so only its module's name travels in the run's spec.
"""


def split(env_id: str) -> tuple[str, str]:
    """The module or file in front of the last colon, empty for none; and the id behind it."""
    module, _, name = env_id.rpartition(":")
    return module, name


def module_of(env_id: str) -> str:
    """The module or file that is imported to make an environment; empty for none."""
    return split(env_id)[0]


def name_of(env_id: str) -> str:
    """The id under which the environment is registered."""
    return split(env_id)[1]


def is_file(module: str) -> bool:
    """Whether a module is named by its file or folder, and not by its own name."""
    return module.endswith(".py") or "/" in module


def travelling(env_id: str) -> str:
    """The name without a path: Id or module:Id."""
    module, name = split(env_id)
    if not is_file(module):
        return env_id
    return f"{module.rstrip('/').rpartition('/')[2].removesuffix('.py')}:{name}"
