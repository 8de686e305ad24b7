"""How an environment is named: `Id`, `module:Id`, or `path/to/module.py:Id` for a file.

A file is one machine's own, so only its module's name travels in the run's spec.
"""

import re

# A module's name, dotted where it lies in a package; its file may be called my-env.py or 3d.py.
_MODULE = re.compile(r"\w[\w-]*(\.\w[\w-]*)*")
# What Gymnasium registers, without the colons: the part behind the last one is the id.
_ID = re.compile(r"(\w[\w-]*/)?\w[\w.-]*")
FORMS = (
    "Id or module:Id, of letters, digits, '_', '-' and '.', as in CartPole-v1 or "
    "package.module:My-v0"
)


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


def names_one(env_id: str) -> bool:
    """Whether a text can name an environment at all: a word, and not a line for a shell."""
    return names_a_module(env_id) and _ID.fullmatch(name_of(env_id)) is not None


def names_a_module(env_id: str) -> bool:
    """Whether what stands in front of the last colon, if there is one, can be a module or file."""
    module = module_of(env_id)
    return ":" not in env_id or is_file(module) or _MODULE.fullmatch(module) is not None


def is_file(module: str) -> bool:
    """Whether a module is named by its file or folder, and not by its own name."""
    return module.endswith(".py") or "/" in module


def names_a_part(text: str) -> bool:
    """Whether a text can name a class or function: module:Name, or path/to/file.py:Name."""
    module, name = split(text)
    words = all(part.isidentifier() for part in name.split("."))
    return bool(module) and names_a_module(text) and words


def travelling(env_id: str) -> str:
    """The name without a path: Id or module:Id."""
    module, name = split(env_id)
    if not is_file(module):
        return env_id
    return f"{module.rstrip('/').rpartition('/')[2].removesuffix('.py')}:{name}"
