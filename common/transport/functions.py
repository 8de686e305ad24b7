"""The server's functions: functions.lua, put there by the learner or, beforehand, by an admin.

Also the commands that each program needs, those inside of the functions included, and whether a
server and its user offer them: a server may be hardened, or be managed by somebody else.
"""

import importlib.resources
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from impala_redis.common.errors import ImpalaError, RedisDenied, UnsuitableServer
from impala_redis.common.server.address import cli_command, parse, without_password
from impala_redis.common.server.connection import (
    ExecAbortError,
    NoPermissionError,
    ResponseError,
    is_unknown_command,
)
from impala_redis.common.server.resp import round_trip
from impala_redis.common.server.suitability import check_kind, version_in
from impala_redis.common.transport.keys import AnyKeys

LIBRARY = "impala5"
FILE = importlib.resources.files("impala_redis.common.transport").joinpath("functions.lua")


class Needs(NamedTuple):
    """What one program asks of a server."""

    sends: tuple[str, ...]  # a command and, after a blank, the key that it is asked for with
    calls: tuple[str, ...] = ()  # functions
    inside: str = ""  # the key that the commands inside of the functions are asked for with


_READS = ("HGET weights", "HMGET weights", "HMGET spec")
_BEATS = ("HSET actor:", "PEXPIRE actor:", "EXISTS actor:", "UNLINK actor:")
# impala-train needs what impala-learner and impala-actor do. SECURITY.md repeats the table.
NEEDS = {
    "impala-learner": Needs(
        (
            *("INFO", "FCALL pushing", "GET lock", "HGET weights", "HMGET stats", "LRANGE claimed"),
            "UNLINK joins",
        ),
        ("open", "join", "renew", "release", "announce", "claim", "confirm", "commit", "publish"),
        "pushing",
    ),
    "impala-actor": Needs(
        (
            *("MULTI", "EXEC", "FCALL pushing", "RPUSHX pushing", "LLEN trajectories"),
            *(*_READS, *_BEATS),
        ),
        ("push_begin", "push_end"),
        "pushing",
    ),
    "impala-actor --plain-push": Needs(
        ("RPUSH trajectories", "LLEN trajectories", *_READS, *_BEATS)
    ),
    "impala-status": Needs(
        (*("FCALL_RO stats", "FCALL_RO lock", "FCALL_RO actor:", "HMGET spec"),),
        ("read_books", "read_learner", "read_fields", "read_names"),
        "actor:",  # one that is not there: the answers are short
    ),
    "impala-status --delete": Needs(
        (*("WATCH lock", "GET lock", "PTTL lock", "SCAN", "MULTI", "UNLINK stats", "EXEC"),)
    ),
    "impala-eval": Needs(("HMGET spec", "HMGET weights")),
    # With the keys of the population.
    "impala-learner --population": Needs(
        (
            *("MULTI", "EXEC", "TIME", "HSET members", "HGETALL members", "HDEL members"),
            *("HSET states", "PEXPIRE states", "HSTRLEN states", "HMGET states", "UNLINK states"),
            *("LPUSH lineage", "LTRIM lineage"),
        )
    ),
    "impala-status --population": Needs(("HGETALL members", "TIME", "LRANGE lineage")),
}
# A command's arguments when it is asked for, KEY in place of a key. What writes is only queued, or
# asked for in a way that it refuses or that finds nothing to change.
QUESTIONS = {
    **dict.fromkeys(("DEL", "EXISTS", "GET", "HGETALL", "HKEYS", "HLEN", "LLEN"), "KEY"),
    **dict.fromkeys(("PTTL", "UNLINK"), "KEY"),
    **dict.fromkeys(
        ("HDEL", "HEXISTS", "HGET", "HMGET", "HSTRLEN", "LPUSH", "RPUSH", "RPUSHX", "SET"),
        "KEY x",
    ),
    **{"HSET": "KEY x x x", "HSETNX": "KEY x x", "WATCH": "KEY"},
    **dict.fromkeys(("FCALL", "FCALL_RO"), "impala_question 1 KEY"),
    **dict.fromkeys(("GETRANGE", "LRANGE", "LTRIM"), "KEY 0 -1"),
    **{"FUNCTION LOAD": "x", "HINCRBY": "KEY x 0", "INFO": "server", "PEXPIRE": "KEY 1000"},
    **{"RENAME": "KEY KEY", "SCAN": "0", "TIME": "", "SORT": "KEY BY nosort STORE KEY"},
}
_TRANSACTION = ("MULTI", "EXEC")
_TWO_WORDS = ("CLIENT SETNAME", "FUNCTION LOAD")
# A user who may do all but this needs an admin to load them, not more rights.
_LEFT_TO_PROVIDE = {"FUNCTION LOAD"}
# They are asked for as they stand: the first two change nothing, and the user of the third may have
# no right to a transaction. Its RPUSH is asked for without a block, so only whether it is there.
_ASKED_OUTRIGHT = {
    *("impala-status", "impala-eval", "impala-actor --plain-push"),
    "impala-status --population",
}


def fcall(function: str, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
    """The command that calls one of the server's functions."""
    return ("FCALL", f"{LIBRARY}_{function}", len(keys), *keys, *arguments)


def provide(client: Any, url: str, *keys: str) -> None:
    """Puts the functions on the server unless exactly these are there.

    `keys` are those of `read_books`: a user who may not list functions may still call this one.
    Raises RedisDenied with what an operator must do, and redis-py's errors.
    """
    if are_there(client, *keys):
        return
    try:
        client.function_load(FILE.read_text(), replace=True)
    except NoPermissionError as error:
        raise RedisDenied(
            "the server lacks this version's functions and this user may not load them; as a user "
            "NAME that may, with its password in REDISCLI_AUTH, run: "
            f"{cli_command(url, login=False)} --user NAME -x FUNCTION LOAD REPLACE "
            f"< {shlex.quote(str(FILE))}"
        ) from error


def are_there(client: Any, *keys: str) -> bool:
    """Whether exactly these functions are on the server; `keys` as for `provide`."""
    source = FILE.read_text()
    try:
        listed = client.function_list(library=LIBRARY, withcode=True)
        return any(source.encode() in _flat(entry) for entry in listed)
    except ResponseError as error:
        if not _is_kept_from_us(error):
            raise
    try:  # a user who may not list functions may still call them
        client.fcall(f"{LIBRARY}_read_books", len(keys), *keys, 0)
    except ResponseError as error:
        if "Function not found" in str(error) or _is_kept_from_us(error):
            return False
        raise
    return True


def require(client: Any, url: str, keys: AnyKeys, programs: Sequence[str]) -> None:
    """Asks for the commands that the programs need, and carries out none.

    Each is asked for with a key of the run that it is needed for: rights may differ by key. A
    learner also needs to load the functions, unless they are there.
    Raises UnsuitableServer or RedisDenied with all that are missing, and redis-py's errors.
    """
    wanted = dict.fromkeys(name for program in programs for name in _wanted(NEEDS[program]))
    books = [keys.named(name) for name in ("stats", "trajectories", "inflight")]
    loads = "impala-learner" in programs and not are_there(client, *books)
    further = ["FUNCTION LOAD"] * loads
    questions = {
        name: _question(name, keys) for name in (*wanted, *further) if name not in _TRANSACTION
    }
    replies = _unnamed(client)
    if set(programs) <= _ASKED_OUTRIGHT:
        questions |= {name: ("RPUSH",) for name in questions if name.startswith("RPUSH ")}
        replies |= zip(questions, round_trip(client, list(questions.values())), strict=True)
    else:
        replies |= _dry_run(client, questions)
    missing = {
        name: reply
        for name, reply in replies.items()
        if _is_kept_from_us(reply) and (name in wanted or name not in _TRANSACTION)
    }
    by_rights = all(isinstance(error, NoPermissionError) for error in missing.values())
    if missing and not (by_rights and missing.keys() == _LEFT_TO_PROVIDE):
        raise _refusal(client, url, keys, missing)


def _is_kept_from_us(reply: Any) -> bool:
    """Whether it is the reply to a command that is forbidden, or not there."""
    return isinstance(reply, NoPermissionError) or is_unknown_command(reply)


def _unnamed(client: Any) -> dict[str, Any]:
    """Lets the client connect without a name where the server does not take one, and says so."""
    try:
        round_trip(client, [])
    except ResponseError as error:
        if not _is_kept_from_us(error):
            raise
        client.connection_pool.connection_kwargs["client_name"] = None
        client.connection_pool.reset()
        return {"CLIENT SETNAME": error}
    return {}


def _dry_run(client: Any, questions: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Replies to commands that are only queued, in a transaction that cannot be carried out.

    LLEN without a key spoils it at its start. Where the server, or this user's rights, know no
    such transaction, it is asked which commands it has, if it tells.
    """
    spoiled = [("MULTI",), ("LLEN",)]
    begun, _, ended = round_trip(client, [*spoiled, ("EXEC",)])
    if isinstance(ended, ExecAbortError):
        replies = round_trip(client, [*spoiled, *questions.values(), ("EXEC",)])
        found = dict(zip(questions, replies[len(spoiled) : -1], strict=True))
        if "no permissions" in str(ended):
            found["EXEC"] = NoPermissionError(str(ended))
        return found
    client.connection_pool.disconnect()  # it may have been left within the transaction
    names = [name.rpartition(" ")[0] or name for name in questions]
    (reply,) = round_trip(client, [("COMMAND", "INFO", *names)])
    known = reply if isinstance(reply, list) and len(reply) == len(names) else names
    unknown = ResponseError("unknown command")
    found = {name: None if one else unknown for name, one in zip(questions, known, strict=True)}
    return {"MULTI": begun, "EXEC": ended, **found}


def _refusal(client: Any, url: str, keys: AnyKeys, missing: Mapping[str, Any]) -> ImpalaError:
    """One sentence with every command that is missing, and what to do."""
    try:
        info = client.info("server")
    except ResponseError:
        info = {}
    else:
        check_kind(info, url)
    denied = {n: str(error) for n, error in missing.items() if isinstance(error, NoPermissionError)}
    by_key = {name for name, why in denied.items() if re.search("access (a|one of the) key", why)}
    unknown, forbidden = _names(missing.keys() - denied.keys()), _names(denied.keys() - by_key)
    where, parts = without_password(url), []
    if unknown:
        kind = version_in(info) or "of a version that it does not tell"
        parts.append(
            f"the server at {where}, {kind}, does not know {', '.join(unknown)}: switched off "
            "there, or never offered; have them switched on, or use another server"
        )
    if denied:
        user = parse(url).user or "default"
        rights = [f"+{name.lower().replace(' ', '|')}" for name in forbidden]
        rights += [f"'~{keys.prefix}*'"] if by_key else []
        what = [*forbidden, *([f"the {keys.whose} keys"] if by_key else [])]
        parts.append(
            f"the user {user!r} of {where} lacks a permission for {', '.join(what)}; as an "
            f"operator, run: {cli_command(url, login=False)} ACL SETUSER {shlex.quote(user)} "
            f"{' '.join(rights)}"
        )
    sentence = f"{'; and '.join(parts)} (SECURITY.md lists what each program needs)"
    return UnsuitableServer(sentence) if unknown else RedisDenied(sentence)


def _names(wanted: Iterable[str]) -> list[str]:
    """The commands' names alone, each once."""
    return sorted({name if name in _TWO_WORDS else name.partition(" ")[0] for name in wanted})


def commands_inside(function: str) -> frozenset[str]:
    """The commands that a function of ours runs, itself or by what it calls."""
    runs, calls = _functions()[function]
    return runs.union(*map(commands_inside, calls))


@cache
def _functions() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """For each function, the commands that it runs itself, and the functions that it calls."""
    bodies = re.findall(r"^local function (\w+)\(.*?\)\n(.*?)^end", FILE.read_text(), re.M | re.S)
    names = {name for name, _ in bodies}
    # A function is called, or handed over as the first argument.
    uses = re.compile(r"\b\w+(?=\()|(?<=\()\w+(?=,)")
    return {
        name: (
            frozenset(re.findall(r"redis\.call\('(\w+)'", body)),
            frozenset(names.intersection(uses.findall(body))),
        )
        for name, body in bodies
    }


def _wanted(needs: Needs) -> list[str]:
    inside = {command for function in needs.calls for command in commands_inside(function)}
    return [*needs.sends, *(f"{command} {needs.inside}" for command in sorted(inside))]


def _question(wanted: str, keys: AnyKeys) -> tuple[str, ...]:
    """The command, with the arguments with which it is asked for."""
    (command,) = _names([wanted])
    name = wanted.removeprefix(command).strip()
    arguments = [keys.named(name) if word == "KEY" else word for word in QUESTIONS[command].split()]
    return (*command.split(), *arguments)


def _flat(reply: Any) -> list[bytes]:
    """The texts anywhere inside a nested reply."""
    if isinstance(reply, list | tuple):
        return [text for item in reply for text in _flat(item)]
    if isinstance(reply, dict):
        return _flat(list(reply.items()))
    return [reply] if isinstance(reply, bytes) else []
