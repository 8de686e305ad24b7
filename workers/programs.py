"""Starts another of our programs: as a fork of this one where that can be, which has its imports.

Otherwise by an interpreter of its own, as for an actor that replaces another: by then impala-train
has threads. Both ways a program finds the same: its arguments, its environment, its log.
"""

import importlib
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from impala_redis.common.local import children, forked
from impala_redis.workers import process, voice

# What each program needs for every run. The learner imports its engine once it is chosen.
_NEEDED = {
    "learner": ("workers.learner",),
    "actor": ("workers.actor", "common.acting.numpy_policy"),
}


def command(name: str, *options: str) -> list[str]:
    """The command line that starts a program."""
    # -P: modules in the working directory must not be taken for ours.
    return [sys.executable, "-P", "-m", f"impala_redis.workers.{name}", *options]


def start(
    name: str,
    options: Sequence[str],
    *,
    log_file: Path | None,
    environment: Mapping[str, str],
    pass_fds: Sequence[int],
) -> children.Process:
    """Starts the program `name` as a child that ends by SIGTERM if we die. Raises OSError."""
    if not forked.can_fork():
        return children.spawn(
            command(name, *options),
            log_file=log_file,
            death_signal=signal.SIGTERM,
            environment=environment,
            pass_fds=pass_fds,
        )
    load(name)
    return forked.fork(
        lambda: _run(name, options),
        [f"impala-{name}", *options],
        log_file=log_file,
        death_signal=signal.SIGTERM,
        environment=environment,
        pass_fds=pass_fds,
    )


def load(name: str) -> None:
    """Imports what the program needs, unless that is done: once for all that are forked later."""
    with process.keeping_all(), process.loading_for_one_thread():
        for module in _NEEDED[name]:
            importlib.import_module(f"impala_redis.{module}")


def _run(name: str, options: Sequence[str]) -> None:
    """The program, in a process that was forked: it must find what a new interpreter would have."""
    program = importlib.import_module(f"impala_redis.workers.{name}")
    sys.argv = [f"impala-{name}", *options]
    sys.modules["__main__"] = program  # multiprocessing looks there for what to import
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of impala-train, or the working directory
    for handler in logging.getLogger().handlers[:]:
        logging.getLogger().removeHandler(handler)
    voice.begin_again()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # of its own; Python's generator sees to that itself
    program.main(args=list(options), prog_name=sys.argv[0])
