"""One learner of the group that part e of the kit measures; all of them do each task alike.

Rank 0 is the part itself (group.py). The others are this program, which does what rank 0 tells.
"""

import json
import sys
import time
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu.networks import run_of
from bench.gpu.plan import Row
from bench.gpu.random_rows import fill
from bench.gpu.updates import BATCHES, MOST_UPDATES, spread, stages_of
from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.devices.graph import capture_for
from impala_redis.common.feeding.batch import Batch, only
from impala_redis.common.grouping.group import Group, connect_store, device_for
from impala_redis.common.grouping.group_engine import GroupEngine
from impala_redis.common.grouping.group_learner import GroupLearner
from impala_redis.common.grouping.meeting import Round, Words, pack, unpack
from impala_redis.common.grouping.seat import Seat
from impala_redis.common.learning.gpu_engine import GpuEngine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.updates import Share, Updated

# A GPU's graph is made after the third update.
WARM_UP, LEAST_UPDATES = 6, 5
WARM_UP_CALLS = 3
OVER = "finished"


class Place(NamedTuple):
    """A learner's place in its group, all of whose learners are on this machine."""

    rank: int
    ranks: int
    cards: int  # which the learners share; 1 on a CPU
    device: str  # "cuda" or "cpu"
    port: int  # of the store, which rank 0 serves
    timeout_s: float


class Task(NamedTuple):
    """What all learners of a group do at a time."""

    what: str  # one of TASKS
    size: int = 0  # bytes of a message, or numbers of a vector
    times: int = 0  # calls, or updates of which the weights are compared
    network: str = ""
    batch_size: int = 0  # trajectories of an update, of all learners together
    unroll_length: int = 0
    mode: str = ""  # "eager" or "graph"
    seconds: float = 0.0  # for which updates are measured


class Seated:
    """A learner that has met the others, and where it computes."""

    def __init__(self, place: Place) -> None:
        """Meets them. Raises GroupLost and ConfigError."""
        local_rank = place.rank % place.cards
        seat = Seat(
            *(place.rank, place.ranks, local_rank, 0, "localhost", place.port), serves_store=True
        )
        self.device = device_for(seat, place.device)
        self._store = connect_store(seat, place.timeout_s)  # others need it as long as they go on
        self.group = Group(seat, self._store, "kit", self.device, place.timeout_s)

    def do(self, task: Task) -> Row:
        """What a task has come to, as this learner sees it."""
        row: Row = TASKS[task.what](task, self.group, self.device)
        return row


def wait_for(device: torch.device) -> None:
    """Waits for all that the device has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Rounds:
    """A learner that makes updates of random rows, alone or as one of a group.

    A group's learners say before each update what they say in a training.
    """

    def __init__(self, task: Task, group: Group | None, device: torch.device) -> None:
        changes: dict[str, Any] = {"batch_size": task.batch_size}
        changes["unroll_length"] = task.unroll_length
        if task.what == "update":  # so slow that thousands of random batches end in no nonsense
            changes["learning_rate"] = 1e-4
        self._spec, config = run_of(task.network, changes)
        self._group, self._size = group, task.batch_size
        capture = capture_for(device) if task.mode == "graph" else None
        if group is None:
            own, self._columns = GpuEngine(self._spec, config, device, capture), slice(None)
            self.learner = Learner(config, own)
        else:
            place = (device, group.ranks, group.rank)
            engine = GroupEngine(self._spec, config, *place, group.add_up, capture)
            self.learner = GroupLearner(config, engine, group)
            columns = task.batch_size // group.ranks
            self._columns = slice(group.rank * columns, (group.rank + 1) * columns)
        self.words_s: list[float] = []  # that the words before each update took

    def new_batch(self) -> Batch:
        """A batch of this learner's columns."""
        return Batch(self.learner.engine.empty_rows(len(self._numbers())))

    def fill(self, batch: Batch, seed: int) -> None:
        """Gives a batch this learner's columns of the rows that the seed makes."""
        whole = empty_trajectory(self._spec, self._size)
        fill(whole, self._spec, seed)
        for mine, theirs in zip(batch.rows, only(whole, self._numbers()), strict=True):
            mine[:] = theirs
        batch.frames = batch.rows.frames

    def update(self, batch: Batch, leaving: str = "") -> list[Updated] | None:
        """Begins an update, and returns those that have ended; None if somebody leaves."""
        batch.staged = self.learner.engine.stage(batch.rows)
        began = time.perf_counter()
        shares = self._meet(leaving, self.learner.share_of(batch))
        self.words_s.append(time.perf_counter() - began)
        return None if shares is None else self.learner.update(batch, shares)

    def _meet(self, leaving: str, share: Share) -> list[Share] | None:
        if self._group is None:
            return None if leaving else [share]
        words = pack(Words(leaving, share, saving=False, waited_s=0.0, stood_by_s=0.0))
        return Round([unpack(said) for said in self._group.exchange(words)]).shares

    def _numbers(self) -> NDArray[np.int64]:
        return np.arange(self._size)[self._columns]


def compare(task: Task, group: Group, device: torch.device) -> Row:
    """How far the weights of the group are from those of one learner with the whole batches.

    The one is computed by rank 0 alone. `alike` says whether all ranks have the same bits.
    """
    learner, is_graph = _trained(task, group, device)
    crcs = group.exchange(str(learner.crc()).encode())
    row: Row = {"updates": task.times, "is_graph": is_graph, "alike": len(set(crcs)) == 1}
    if group.rank == 0:
        one, _ = _trained(task, None, device)
        row["apart"] = float(np.abs(learner.engine.flat() - one.engine.flat()).max())
    return row


def _trained(task: Task, group: Group | None, device: torch.device) -> tuple[Any, bool]:
    """The learner after its updates, and whether the last one was computed by a graph."""
    rounds, ended = Rounds(task, group, device), list[Updated]()
    batch = rounds.new_batch()
    for seed in range(task.times):
        rounds.fill(batch, seed)
        ended = [*(rounds.update(batch) or []), *rounds.learner.settle()]
    return rounds.learner, "graph_s" in ended[-1].figures


def measure(task: Task, group: Group | None, device: torch.device) -> Row:
    """Figures of updates that go on for about as long as the task says, from this rank's view."""
    rounds = Rounds(task, group, device)
    free = deque(rounds.new_batch() for _ in range(BATCHES))
    for seed, batch in enumerate(free):
        rounds.fill(batch, seed)
    ended: list[Updated] = []

    def note(more: list[Updated]) -> None:
        ended.extend(more)
        free.extend(one.batch for one in more)

    for _ in range(WARM_UP):
        note(rounds.update(free.popleft()) or [])
    note(rounds.learner.settle())
    ended.clear()
    rounds.words_s.clear()
    moments, leaving = [time.perf_counter()], ""
    # All leave in the round in which the first one says so.
    while (more := rounds.update(free.popleft(), leaving)) is not None:
        note(more)
        moments.append(time.perf_counter())
        is_over = moments[-1] - moments[0] >= task.seconds or len(moments) > MOST_UPDATES
        leaving = OVER if is_over and len(moments) > LEAST_UPDATES else ""
    note(rounds.learner.settle())
    elapsed_s, updates = time.perf_counter() - moments[0], len(moments) - 1
    stages = [stages_of(one) for one in ended]
    return {
        "updates": updates,
        "frames_per_s": task.batch_size * task.unroll_length * updates / elapsed_s,
        "period_s": spread(np.diff(moments)),
        "words_s": spread(rounds.words_s),
        "device_s": spread([sum(of.values()) for of in stages]),
        "stages_s": {name: float(np.median([of[name] for of in stages])) for name in stages[0]},
        "is_graph": "graph_s" in stages[0],
    }


def exchange(task: Task, group: Group, _device: torch.device) -> Row:
    """The time of an exchange of messages of that many bytes from each learner."""
    message, took_s = bytes(task.size), []
    for _ in range(WARM_UP_CALLS + task.times):
        began = time.perf_counter()
        group.exchange(message)
        took_s.append(time.perf_counter() - began)
    return {"call_s": spread(took_s[WARM_UP_CALLS:])}


def add_up(task: Task, group: Group, device: torch.device) -> Row:
    """The time of adding up vectors of that many float32, until the device has the sum."""
    vector, took_s = torch.zeros(task.size, device=device), []
    for _ in range(WARM_UP_CALLS + task.times):
        wait_for(device)
        began = time.perf_counter()
        group.add_up(vector)
        wait_for(device)
        took_s.append(time.perf_counter() - began)
    return {"call_s": spread(took_s[WARM_UP_CALLS:])}


TASKS = {"compare": compare, "update": measure, "exchange": exchange, "add_up": add_up}


def main() -> None:
    """Does the tasks that rank 0 tells, until it tells none."""
    torch.set_num_threads(1)
    seated = Seated(Place(*json.loads(sys.argv[1])))
    while told := seated.group.tell(None):
        seated.do(Task(*json.loads(told)))
    seated.group.close()


if __name__ == "__main__":
    main()
