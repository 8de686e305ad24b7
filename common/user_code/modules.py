"""Modules of the user's own: who names one, where it lies, what hides it, what is taken from it."""

import contextlib
import importlib.util
import itertools
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from impala_redis.common.errors import ConfigError, UnsupportedEnvironment, printable
from impala_redis.common.settings.env_id import FORMS, is_file, names_a_module, split

# How many files near the working directory are looked through for a name that is missing.
_MOST_FILES, _MOST_BYTES = 200, 262_144


def file_of(module: str) -> Path | None:
    """The file or folder that a module is named by; None for a module's own name."""
    if not is_file(module):
        return None
    with contextlib.suppress(RuntimeError):  # nobody's home
        return Path(module).expanduser()  # a shell leaves the ~ of --env=~/my_env.py:Id
    return Path(module)


def absolute(env_id: str) -> str:
    """The same environment with an absolute path, if it has one: it is the same from any folder."""
    module, name = split(env_id)
    file = file_of(module)
    return env_id if file is None else f"{file.absolute()}:{name}"


def as_typed(module: str) -> str:
    """A module or file as one types it in this folder, so that a program started here finds it."""
    file = file_of(module)
    if file is None:
        # A folder that only this command was told of; another one finds the file by its path.
        folders = [Path(f) for f in os.environ.get("PYTHONPATH", "").split(os.pathsep) if f]
        places = [folder / f"{module}.py" for folder in (Path(), *folders)]
        file = next((place for place in places if place.exists()), None)
        if file is None or file.parent == Path():
            return shlex.quote(module)
    if file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    return shlex.quote(str(file) if is_file(str(file)) else f"./{file}")  # a package's folder


def check_network(network: str, trusted: Collection[str]) -> None:
    """Refuses a network of a module that only Redis or a checkpoint has named.

    Raises ConfigError.
    """
    check_trusted(network, trusted, "network", "--network-module")


def check_trusted(named: str, trusted: Collection[str], what: str, option: str) -> None:
    """Refuses what a module makes that only Redis or a checkpoint has named. Raises ConfigError.

    Args:
      named: module:name, or a name alone, which needs no module.
      trusted: modules, or files of modules, that the user has named; a file of these can be
        imported afterwards.
      what: the word for what is made, such as "environment".
      option: that names modules to be trusted for it.
    """
    module, _ = split(named)
    if not module:
        return
    if file_of(module):
        raise ConfigError(
            f"the run's {what} {printable(named)} names a file, and only modules are taken "
            "from a run; start its learner with this version of impala-redis"
        )
    for one in trusted:
        file = file_of(one)
        if module == one or (file is not None and module == file.stem):
            if file is not None:
                _import_from(file)
            return
    raise ConfigError(
        f"the run's {what} {printable(named)} is made by the module {module!r}, which nobody "
        f"here has named; if you trust it, add {option} {shlex.quote(module)}"
    )


def make_findable(env_id: str) -> str:
    """Lets the module be found, and returns the environment's name without a path.

    `module:Id` is also looked for in the working directory, after every other place: a file there
    can never take the place of an installed package. A file must be the one that is imported.
    Raises UnsupportedEnvironment: it is not there, or hidden by another module of its name, or the
    text names no environment.
    """
    if not names_a_module(env_id):
        raise UnsupportedEnvironment(
            f"there is no environment {printable(env_id)!r}: its name must be {FORMS}, or a file "
            "in the module's place"
        )
    module, name = split(env_id)
    file = file_of(module)
    if file is not None:
        _import_from(file)
        return f"{file.stem}:{name}"
    if module:
        with contextlib.suppress(OSError):  # the folder is gone
            _look_in(Path.cwd())
    return env_id


def _import_from(file: Path) -> None:
    """Lets a file's module be imported. Raises UnsupportedEnvironment."""
    if not file.exists():
        raise UnsupportedEnvironment(
            f"there is no file {printable(file)}; name the one that is to be imported, as in "
            "path/to/my_env.py"
        )
    _look_in(file.absolute().parent)
    try:
        found = getattr(importlib.util.find_spec(file.stem), "origin", None)
    except (ImportError, ValueError):
        found = None
    whole = file / "__init__.py" if file.is_dir() else file
    if found is None or Path(found).resolve() != whole.resolve():
        why = f"it is hidden by {found}" if found else "its name cannot be a module's"
        why = f"{why}; rename it"
        if file.is_dir() and not whole.exists():
            why = "it is a folder without __init__.py; name the file in it"
        raise UnsupportedEnvironment(f"{printable(file)} cannot be imported: {why}")


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def way_on(env_id: str, error: BaseException) -> str:
    """What to do about an id that could not be found, as the end of a sentence.

    Args:
      env_id: as it was asked for, without a path.
      error: of Gymnasium, or of an import of the user's own module.
    """
    module, name = split(env_id)
    if module and _folder_of(module.partition(".")[0]) is None:
        return _way_to_module(module, name)
    if isinstance(error, ImportError):
        return _way_to_import(module, error)
    if module:
        if hidden := _hidden_file(module):
            return f"; {hidden} is hidden by another module of its name: rename it"
        if ids := _registered_by(module):
            typed = shlex.quote(f"{module}:{ids[0]}")
            return f"; {module} registers {', '.join(ids)}: give --env {typed}"
        old = "; wrap it for Gymnasium, for example with the package shimmy, and register that"
        return f"; {module} is imported and does not register it with Gymnasium" + (
            f", but uses the old package gym{old}" if "gym" in sys.modules else ""
        )
    for path in _files_nearby():
        named = path.stem == name or path == Path(name)
        if name and (found := _registers(path, "" if named else name)):
            module = str(path) if len(path.parts) > 1 else path.stem
            return f"; {path} names it: give --env {shlex.quote(f'{module}:{found}')}"
    return (
        "; --env takes a Gymnasium id such as CartPole-v1, or module:Id or path/to/file.py:Id to "
        "import what registers it; one of the old package gym must be wrapped for Gymnasium "
        "first, for example with the package shimmy"
    )


def _way_to_module(module: str, name: str) -> str:
    """What to do about a module that is not found."""
    others = "to impala-actor and impala-eval --env-module"
    base = f"{module.replace('.', '/')}.py"
    for path in _files_nearby():
        if str(path).endswith(f"/{base}"):
            typed, file = shlex.quote(f"{path}:{name}"), shlex.quote(str(path))
            return f"; it is in {file}: give --env {typed} ({others} {file})"
    return (
        f"; install its package, start the program in the folder of {base}, or name the file: "
        f"--env {shlex.quote(f'PATH/{base}:{name}')} ({others} {shlex.quote(f'PATH/{base}')})"
    )


def way_to_module(module: str, error: BaseException) -> str:
    """What to do about a module that cannot be imported, as the end of a sentence."""
    if _folder_of(module.partition(".")[0]) is None:
        return (
            f"; install its package, start the program in the folder of {module}.py, or name the "
            f"file: PATH/{module}.py in the module's place"
        )
    return _way_to_import(module, error) if isinstance(error, ImportError) else ""


def _way_to_import(module: str, error: ImportError) -> str:
    """What to do about an import that fails in the user's own module, or in what it names."""
    if "relative import" in str(error):
        return (
            f"; {module or 'it'} is a part of a package: name it from the folder that holds the "
            "package, as in --env package.module:Id, or name the package's own folder"
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = printable(error.name.partition(".")[0])
        return f"; install {missing}, or name the folder that holds it in PYTHONPATH"
    return ""


def _hidden_file(module: str) -> str | None:
    """The file in the working directory that looks like the module, if another one was imported."""
    file, found = Path(f"{module}.py"), getattr(sys.modules.get(module), "__file__", None)
    is_hidden = file.exists() and (found is None or Path(found).resolve() != file.resolve())
    return str(file) if is_hidden else None


def _registered_by(module: str) -> list[str]:
    """The ids, a few of them, of environments that a module has registered."""
    import gymnasium  # late: the programs that only name an environment do without it

    found = []
    for name, spec in gymnasium.registry.items():
        made_by = spec.entry_point or spec.vector_entry_point
        place = made_by if isinstance(made_by, str) else getattr(made_by, "__module__", "")
        if f"{place}.".replace(":", ".").startswith(f"{module}."):
            found.append(printable(name))
    return found[:5]


def _files_nearby() -> Iterator[Path]:
    """Python files in the working directory and in its folders, relative to it."""
    with contextlib.suppress(OSError):
        nearby = itertools.chain(Path().glob("*.py"), Path().glob("[!.]*/*.py"))
        yield from itertools.islice(nearby, _MOST_FILES)


def _registers(path: Path, name: str) -> str | None:
    """The id that a file seems to register: that name, with or without a version; any if empty."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return None
    if not name:
        found = re.search(r"""register\(\s*(?:id\s*=\s*)?["']([\w/.-]+)["']""", text)
    elif "register" in text:
        found = re.search(rf"""["']({re.escape(name)}(?:-v\d+)?)["']""", text)
    else:
        return None
    return found[1] if found else None


def hidden_neighbours(env_id: str) -> str:
    """What stands beside the module and is found elsewhere first, as the end of a sentence.

    Empty if there is nothing: then the module's own error says all.
    """
    folder = _folder_of(split(env_id)[0].partition(".")[0])
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
