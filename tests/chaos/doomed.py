"""Runs a program that kills itself at one chosen instant, as a SIGKILL from outside would.

    doomed.py WHEN WHAT NUMBER PROGRAM [the program's own options]

PROGRAM is "actor" or "learner". The instant is the NUMBER-th time (from 1) of:

    before module:Class.method    it is called
    after  module:Class.method    it has returned
    half   push                   half of the bytes that call this server function are sent
    sent   push                   all of them are, and no reply has been read

Each push has one block, so that the push of a number is that of the block.
"""

import functools
import importlib
import itertools
import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from typing import Any

from redis.connection import AbstractConnection

from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.functions import LIBRARY


def die() -> None:
    """Ends this process as a power cut would: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def doom_call(when: str, what: str, is_it: Callable[[], bool]) -> None:
    """Patches `module:Class.method` or `module:function`."""
    module, _, path = what.partition(":")
    holder, _, name = path.rpartition(".")
    owner = pkgutil.resolve_name(f"{module}:{holder}" if holder else module)
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        now = is_it()
        if now and when == "before":
            die()
        result = original(*arguments, **named)
        if now:
            die()
        return result

    setattr(owner, name, wrapped)


def doom_sending(when: str, function: str, is_it: Callable[[], bool]) -> None:
    """Patches the sending of a server function's call."""
    original = AbstractConnection.send_packed_command
    name = f"{LIBRARY}_{function}".encode()

    def send(self: Any, command: Any, check_health: bool = True) -> None:
        chunks = command if isinstance(command, list) else [command]
        data = b"".join(c.encode() if isinstance(c, str) else c for c in chunks)
        if name in data and is_it():
            self._sock.sendall(data[: len(data) // 2] if when == "half" else data)
            die()
        original(self, command, check_health)

    AbstractConnection.send_packed_command = send  # type: ignore[method-assign]


def main() -> None:
    """Sets the trap and becomes the program."""
    when, what, number, program, *options = sys.argv[1:]
    calls = itertools.count(1)
    trap = {"before": doom_call, "after": doom_call, "half": doom_sending, "sent": doom_sending}
    trap[when](when, what, lambda: next(calls) == int(number))
    ActorLink.most_together = 1
    sys.argv = [f"impala-{program}", *options]
    importlib.import_module(f"impala_redis.workers.{program}").main()


if __name__ == "__main__":
    main()
