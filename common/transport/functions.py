"""The server's functions: functions.lua, put there by the learner or, beforehand, by an admin."""

import importlib.resources
import shlex
from collections.abc import Sequence
from typing import Any

from impala_redis.common.errors import RedisDenied
from impala_redis.common.server.address import cli_command
from impala_redis.common.server.connection import NoPermissionError, ResponseError

LIBRARY = "impala2"
# The server compares the whole text, and only an admin may load another: so its comments stay, too
# (where it names common/connection.py, that is common/server/translation.py).
FILE = importlib.resources.files("impala_redis.common.transport").joinpath("functions.lua")


def fcall(function: str, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
    """The command that calls one of the server's functions."""
    return ("FCALL", f"{LIBRARY}_{function}", len(keys), *keys, *arguments)


def provide(client: Any, url: str, *keys: str) -> None:
    """Puts the functions on the server unless exactly these are there.

    `keys` are those of `read_books`: a user who may not list functions may still call this one.
    Raises RedisDenied with what an admin must do, and redis-py's errors.
    """
    source = FILE.read_text()
    if _are_there(client, source, keys):
        return
    try:
        client.function_load(source, replace=True)
    except NoPermissionError as error:
        raise RedisDenied(
            "the server lacks this version's functions and this user may not load them; as an "
            f"admin, with the password in REDISCLI_AUTH, run: {cli_command(url, login=False)} "
            f"--user admin -x FUNCTION LOAD REPLACE < {shlex.quote(str(FILE))}"
        ) from error


def _are_there(client: Any, source: str, keys: tuple[str, ...]) -> bool:
    try:
        listed = client.function_list(library=LIBRARY, withcode=True)
        return any(source.encode() in _flat(entry) for entry in listed)
    except NoPermissionError:
        pass
    try:  # a user who may not list functions may still call them
        client.fcall(f"{LIBRARY}_read_books", len(keys), *keys)
    except ResponseError as error:
        if "Function not found" not in str(error):
            raise
        return False
    return True


def _flat(reply: Any) -> list[bytes]:
    """The texts anywhere inside a nested reply."""
    if isinstance(reply, list | tuple):
        return [text for item in reply for text in _flat(item)]
    if isinstance(reply, dict):
        return _flat(list(reply.items()))
    return [reply] if isinstance(reply, bytes) else []
