"""A server's password from a file: it never stands on a command line or in an address."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from impala_redis.common.errors import ConfigError
from impala_redis.common.files import decoded

_LONGEST = 4096


class Password(NamedTuple):
    """The first line of a file, and whether others than its owner and group can read it."""

    text: str
    others_read: bool


def password_in(path: Path) -> Password:
    """The password in a file. Raises ConfigError: it cannot be read, or holds none."""
    try:
        with path.open("rb") as file:
            others_read = bool(os.fstat(file.fileno()).st_mode & stat.S_IROTH)
            password = decoded(file.readline(_LONGEST)).rstrip("\r\n")
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(f"cannot read the password file {path}: {why}") from error
    except ValueError as error:
        raise ConfigError(f"the password file {path} is of no use: {error}") from error
    if not password:
        raise ConfigError(f"the password file {path} is empty: its first line must be the password")
    return Password(password, others_read)
