"""The warm parent: imports once what the programs import, and forks a program for each request.

    parent.py FD PID

FD is our end of a socket pair; PID the tests, whose child a program becomes. A request is a line of
JSON (see warm/start.py); the answer is the new program's process number on a line.

This process does nothing but import and fork. It has no thread of its own: those of OpenBLAS end
themselves before a fork, and OpenMP starts its first one when something is computed. Three things
are otherwise than in a cold program: the seed of hashes and the filters of warnings that libraries
have added are the same in all, and nothing of C or C++ is tidied up at the end.
"""

import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy
import torch

IMPORTED = (
    "encodings.idna",
    "gymnasium.envs.classic_control.cartpole",
    "impala_redis.common.acting.numpy_policy",
    "impala_redis.common.acting.torch_policy",
    "impala_redis.common.feeding.feeder",
    "impala_redis.common.learning.learner",
    "impala_redis.common.feeding.replay",
    "impala_redis.common.records.tensorboard_file",
    "impala_redis.workers.actor",
    "impala_redis.workers.evaluator",
    "impala_redis.workers.learner",
    "impala_redis.workers.report",
    "impala_redis.workers.status",
    "impala_redis.workers.train",
)

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def next_request(connection: socket.socket, tests: int) -> dict[str, Any]:
    """Forks for every request that comes. Returns in the new processes only."""
    with connection, connection.makefile("rb") as lines:
        connection.sendall(b"ready\n")
        for line in lines:
            go_between = os.fork()
            if go_between:
                os.waitpid(go_between, 0)
                continue
            if os.fork():
                os._exit(0)  # an orphan now, the new process goes to the tests
            request: dict[str, Any] = json.loads(line)
            _belong_to(tests)
            _open_files(request["log"])
            connection.sendall(b"%d\n" % os.getpid())
            return request
    os._exit(0)  # the tests are over


def _belong_to(tests: int) -> None:
    """Waits until we are a child of the tests, and ends us when they end."""
    while os.getppid() != tests:
        if os.getppid() == 1 or not Path(f"/proc/{tests}").exists():
            os._exit(1)
        os.sched_yield()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != tests:  # they ended before the line above
        os._exit(1)


def _open_files(log: str) -> None:
    """Standard output and standard error go to the log; standard input is empty already."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


def become(request: dict[str, Any]) -> None:
    """Makes this process what a new interpreter is when it begins with the script."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    script, *_ = sys.argv = request["argv"]
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [str(Path(script).parent), *filter(None, folders)]
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NAME, request["name"].encode(), 0, 0, 0)
    # Once Python has ended in order, torch's C++ would take 0.2 s to tidy up what is gone anyway.
    libc.on_exit(libc._exit, None)
    # From the system's randomness, as at an import.
    random.seed()
    numpy.random.seed()
    torch.seed()
    gc.enable()


def main() -> None:
    """Runs as the warm parent; each program that it forks ends in the last line."""
    descriptor, tests = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for the tests
    for name in IMPORTED:
        importlib.import_module(name)
    gc.disable()
    gc.collect()
    gc.freeze()  # a search for garbage in a program would copy all these pages
    become(next_request(socket.socket(fileno=descriptor), tests))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
