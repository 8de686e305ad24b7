"""A run's settings as a TOML file, written and read."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any, BinaryIO

from impala_redis.common.errors import ConfigError, printable
from impala_redis.common.files import decoded, open_to_read
from impala_redis.common.run.config import Config, find_setting, settings
from impala_redis.common.tasks.listing import table_of
from impala_redis.common.tasks.task import Task

# A file with every setting takes 10 KB. The time to parse a line grows with the square of the dots
# in its key; the longest list of names has fewer.
MOST_BYTES, MOST_DOTS = 65_536, 2500
# No setting has a longer name.
LONGEST_KEY = 100


def to_toml(config: Config) -> str:
    """The resolved config as a TOML file, each key with its help."""
    values = config.values()
    lines = []
    for group in dataclasses.fields(config):
        lines.append(f"\n[{group.name}]")
        lines += [
            f"{setting.key} = {toml_value(values[setting.key])}  # {setting.help}"
            for setting in settings()
            if setting.group == group.name
        ]
    return "\n".join(lines).lstrip() + "\n"


def read_document(path: Path) -> dict[str, Any]:
    """A TOML file that the user has named, as it is; it may also be a link, or a pipe.

    Raises ConfigError: unreadable, too long, or not TOML.
    """
    try:
        with path.open("rb") as file:
            return _parsed(file, path)
    except OSError as error:
        raise ConfigError(_unreadable(path, error)) from error


def read_document_found(path: Path) -> dict[str, Any]:
    """A TOML file that was found in a run directory: a regular file, and no symbolic link.

    Raises ConfigError as `read_document`.
    """
    try:
        with open_to_read(path) as file:
            return _parsed(file, path)
    except OSError as error:
        raise ConfigError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: OSError) -> str:
    return f"cannot read the config file {printable(path)}: {error.strerror}"


def _parsed(file: BinaryIO, path: Path) -> dict[str, Any]:
    import tomllib  # late: it takes 20 ms, and most programs read none

    raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES or any(line.count(b".") > MOST_DOTS for line in raw.splitlines()):
        raise ConfigError(
            f"the config file {printable(path)} is too long: it may have {MOST_BYTES:,} bytes, and "
            f"{MOST_DOTS:,} dots in a line"
        )
    try:
        return tomllib.loads(decoded(raw).replace("\r\n", "\n").replace("\r", "\n"))
    except (ValueError, RecursionError) as error:
        why = str(error)[:200]
        raise ConfigError(f"the config file {printable(path)} is not TOML: {why}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a TOML file that the user has named. Raises ConfigError."""
    return settings_in(read_document(path))


def read_value(path: Path, key: str) -> Any:
    """What a TOML file that the user has named says of one setting alone. Raises ConfigError."""
    document = read_document(path)
    if list(document) != [key]:
        others = ", ".join(sorted(name[:LONGEST_KEY] for name in document if name != key)[:5])
        has = f"has {others}" if others else f"has no {key}"
        raise ConfigError(
            f"the file {printable(path)} {has}, and is to have {key} alone; give other settings in "
            "a file for --config"
        )
    if not document[key]:
        raise ConfigError(f"the file {printable(path)} has an empty list of {key}; fill it")
    return document[key]


def config_in(text: bytes) -> Config:
    """The config that `to_toml` has written. Raises ConfigError: another version has."""
    return Config().replace(settings_in(_parsed(io.BytesIO(text), Path("of the run"))))


def settings_in(document: dict[str, Any]) -> dict[str, Any]:
    """A document's settings, as flat keys; tables only group them. Raises ConfigError.

    The table `[run]` of a run directory's config.toml is passed over.
    """
    document = {key: value for key, value in document.items() if key != "run"}
    values: dict[str, Any] = {}
    for key, value in document.items():
        values.update(value if isinstance(value, dict) else {key: value})
    return {find_setting(key[:LONGEST_KEY]).key: value for key, value in values.items()}


def toml_value(value: Any) -> str:
    """A value of a setting, or any text, as it stands in a TOML file."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):  # a JSON string is a TOML string, but for one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Task):
        pairs = (f"{key} = {toml_value(one)}" for key, one in table_of(value).items())
        return f"{{{', '.join(pairs)}}}"
    return repr(value)
