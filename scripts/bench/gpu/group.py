"""Part e of the kit: several learners that make each update together, beside one alone.

On one GPU two learners share it and add up by gloo. Where there are more, groups of up to eight
follow, with a GPU each, by nccl. Each group's weights are compared with those of one learner, its
updates are timed, and so are the calls by which learners talk. The store is served by rank 0, which
is this program; no torchrun is needed. The short form is of two learners on the CPU.
"""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from bench import steady
from bench.gpu import plan, rank
from bench.gpu.plan import Plan, Row
from bench.gpu.rank import Place, Seated, Task
from impala_redis.common.errors import GroupLost
from impala_redis.common.local import children

NETWORKS = ("mlp", "nature")
# Numbers of learners with a GPU each.
SIZES = (2, 4, 8)
MODES = ("eager", "graph")
BATCH_SIZES, UNROLL_LENGTH = (32, 256), 20
SHORT_BATCH_SIZE, SHORT_UNROLL_LENGTH = 4, 2
COMPARED_UPDATES, SHORT_COMPARED_UPDATES = 200, 50
# The largest difference of a parameter that is rounding.
MOST_APART = 1e-5
SECONDS, SHORT_SECONDS = 0.5, 0.02
CALLS, SHORT_CALLS = 30, 5
# Bytes of words, and float32 of a vector: from a small network's to ten times the nature network's.
MESSAGES = (128, 1024, 16 * 1024, 256 * 1024)
VECTORS = (5_000, 100_000, 1_700_000, 17_000_000)
# What Python is told to do as another rank.
MEMBER = ["-m", "bench.gpu.rank"]
# How long a call may wait for the other learners, and an ended one may take.
TIMEOUT_S, END_S = 60.0, 10.0


class GroupFailed(Exception):
    """The learners of a group differ from one learner, or one of them ended badly."""


class Layout(NamedTuple):
    """How many learners are measured as a group, and on what."""

    ranks: int
    cards: int  # that they share; 1 on a CPU

    def by(self, on_gpu: bool) -> str:
        """What adds up its vectors."""
        return "nccl" if on_gpu and self.cards == self.ranks else "gloo"


def group(given: Plan) -> None:
    """Measures one group after the other. Raises GroupFailed and GroupLost."""
    torch.set_num_threads(1)
    cards = torch.cuda.device_count() if given.on_gpu else 0
    layouts = [Layout(2, 1), *(Layout(size, size) for size in SIZES if size <= cards)]
    wrong: list[str] = []
    for number, layout in enumerate(layouts):
        until = time.monotonic() + given.left_s / (len(layouts) - number)
        wrong += _measured(given, layout, until)
    if wrong:
        raise GroupFailed(f"{wrong[0]}; {len(wrong)} in all")


def _measured(given: Plan, layout: Layout, until: float) -> list[str]:
    """Adds the rows of a group's tasks; returns how it differs from one learner, if it does."""
    timeout_s = max(1.0, min(TIMEOUT_S, until - time.monotonic()))
    first = Place(0, layout.ranks, layout.cards, given.device, _free_port(), timeout_s)
    others = [first._replace(rank=number) for number in range(1, layout.ranks)]
    logs = [Path(given.folder) / f"{layout.ranks}-{place.rank}.log" for place in others]
    processes = [_start(place, log) for place, log in zip(others, logs, strict=True)]
    wrong, waiting, longest_s = [], list(tasks(given)), 0.0
    try:
        seated = Seated(first)
        # A task is not begun that might not end in time.
        while waiting and until - time.monotonic() > longest_s:
            began = time.monotonic()
            task = waiting.pop(0)
            for row in _rows_of(task, layout, seated, given.on_gpu):
                given.add(row)
                if task.what == "compare" and not (row["alike"] and row["apart"] <= MOST_APART):
                    wrong.append(f"the group is not one learner: {row}")
            longest_s = max(longest_s, time.monotonic() - began)
        seated.group.tell(b"")
        seated.group.close()
        codes = [process.wait(END_S) for process in processes]
    except GroupLost as lost:
        raise GroupFailed(f"{lost}; {_said(processes, logs)}") from lost
    finally:
        for process in processes:
            children.end(process, 0.0)
    if any(codes):
        raise GroupFailed(_said(processes, logs))
    if waiting:
        given.add({"left_out": [task._asdict() for task in waiting]} | layout._asdict())
    return wrong


def _rows_of(task: Task, layout: Layout, seated: Seated, on_gpu: bool) -> Iterator[Row]:
    """The row of a task, and before that of an update the row of one learner that makes it."""
    about = {name: value for name, value in task._asdict().items() if value}
    if task.what == "update" and layout.cards == 1:
        alone = rank.measure(task, None, seated.device)
        yield about | {"ranks": 1, "cards": 1, "by": ""} | alone
    seated.group.tell(json.dumps(task).encode())
    if task.what == "exchange":
        about["nbytes"] = task.size
    elif task.what == "add_up":
        about["nbytes"] = 4 * task.size
    yield about | layout._asdict() | {"by": layout.by(on_gpu)} | seated.do(task)


def tasks(given: Plan) -> Iterator[Task]:
    """What each group does, in this order."""
    full, names = given.on_gpu, [name for name in NETWORKS if name in given.networks]
    modes = MODES if full else MODES[:1]
    unroll_length = UNROLL_LENGTH if full else SHORT_UNROLL_LENGTH
    sizes = BATCH_SIZES if full else (SHORT_BATCH_SIZE,)
    updates = COMPARED_UPDATES if full else SHORT_COMPARED_UPDATES
    seconds, calls = (SECONDS, CALLS) if full else (SHORT_SECONDS, SHORT_CALLS)
    for mode in modes:
        yield Task("compare", 0, updates, "mlp", sizes[0], unroll_length, mode)
    for size in MESSAGES:
        yield Task("exchange", size, calls)
    for size in VECTORS if full else VECTORS[:2]:
        yield Task("add_up", size, calls)
    for batch_size in sizes:
        for name in names:
            for mode in modes:
                yield Task("update", 0, 0, name, batch_size, unroll_length, mode, seconds)


def _start(place: Place, log: Path) -> "subprocess.Popen[bytes]":
    """Starts another learner of the group, which ends with us."""
    command = [sys.executable, *MEMBER, json.dumps(place)]
    return children.spawn(command, log_file=log, death_signal=signal.SIGTERM)


def _said(processes: "Sequence[subprocess.Popen[bytes]]", logs: Sequence[Path]) -> str:
    """The last words of the learners that have ended badly."""
    words = [
        f"rank {number} ended with {process.returncode}: {steady.last_words(log)}"
        for number, (process, log) in enumerate(zip(processes, logs, strict=True), 1)
        if process.poll()
    ]
    return "; ".join(words) or "no other rank had ended by itself"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    plan.run(group)
