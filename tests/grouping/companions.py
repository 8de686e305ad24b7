"""Learners of a group as threads of one process, and the batches that they and one learner get."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from updates import make_data

from impala_redis.common.devices.graph import Capture
from impala_redis.common.encoding.space_text import text_of
from impala_redis.common.errors import GroupLost
from impala_redis.common.feeding.batch import Batch, Part, only
from impala_redis.common.grouping.group_engine import GroupEngine
from impala_redis.common.grouping.group_learner import GroupLearner
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.learning.updates import Updated
from impala_redis.common.networks.own_probe import find_out
from impala_redis.common.records.window import Played
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec
from small_networks import some_actions, some_observations

CPU = torch.device("cpu")
NUMBERS, TWO = ObservationSpec((4,), "float32"), discrete(2)
TIMEOUT_S = 20.0
Found = TypeVar("Found")


def run_of(
    observation: ObservationSpec = NUMBERS, action: ActionSpec = TWO, **changes: Any
) -> tuple[RunSpec, Config]:
    """A run with the network of the preset for CartPole."""
    fixed = {"hidden_sizes": [64, 64], "unroll_length": 5, "total_frames": 100_000}
    config = Config().replace(fixed | changes)
    if "network" not in changes:
        return make_spec("test", config, observation, action), config
    text = text_of(spaces.Box(-9, 9, (4,), np.float32), spaces.Discrete(2))
    return make_spec("test", config, observation, action, text, find_out), config


class Table:
    """Where threads meet: each brings something, and gets what all have brought."""

    def __init__(self, ranks: int) -> None:
        self.barrier = threading.Barrier(ranks, timeout=TIMEOUT_S)
        self._brought: list[Any] = [None] * ranks

    def exchange(self, rank: int, brought: Found) -> list[Found]:
        try:
            self._brought[rank] = brought
            self.barrier.wait()
            found = list(self._brought)
            self.barrier.wait()
        except threading.BrokenBarrierError as error:
            raise GroupLost("a learner of the group has ended") from error
        return found


class Companion(NamedTuple):
    """One learner's place in a group of threads, as `grouping.group.Group` is of processes."""

    table: Table
    rank: int
    ranks: int

    def exchange(self, message: bytes) -> list[bytes]:
        return self.table.exchange(self.rank, message)

    def add_up(self, vector: Tensor) -> None:
        vector.copy_(sum(self.table.exchange(self.rank, vector.clone())))

    def close(self) -> None:
        self.table.barrier.abort()


class Companions:
    """The learners of one run, each on a thread of its own."""

    def __init__(
        self, spec: RunSpec, config: Config, ranks: int = 2, capture: Capture | None = None
    ) -> None:
        self._table, self.ranks = Table(ranks), ranks
        # The same for all updates: torch takes several times as long on a thread that is new.
        self._threads = ThreadPoolExecutor(ranks)
        self.learners: list[GroupLearner] = []
        self.places = [Companion(self._table, rank, ranks) for rank in range(ranks)]
        for rank, place in enumerate(self.places):
            engine = GroupEngine(spec, config, CPU, ranks, rank, place.add_up, capture)
            self.learners.append(GroupLearner(config, engine, place))

    def all_do(self, job: Callable[[int, GroupLearner], Found]) -> list[Found]:
        """What each learner's call of the job returns; raises what one of them raised."""

        def guarded(rank: int) -> Found:
            try:
                return job(rank, self.learners[rank])
            except BaseException:
                self._table.barrier.abort()
                raise

        return list(self._threads.map(guarded, range(self.ranks)))

    def update(self, batches: Sequence[Batch]) -> list[list[Updated]]:
        """An update of a batch for each learner, as a round makes it."""

        def one(rank: int, learner: GroupLearner) -> list[Updated]:
            batch = batches[rank]
            rows = learner.engine.empty_rows(batch.size)
            for mine, theirs in zip(rows, batch.rows, strict=True):
                mine[:] = theirs
            batch.rows, batch.staged = rows, learner.engine.stage(rows)
            shares = self._table.exchange(rank, learner.share_of(batch))
            return [*learner.update(batch, shares), *learner.settle()]

        return self.all_do(one)


def some_batch(spec: RunSpec, seed: int, columns: int) -> Batch:
    """A full batch of random rows, each column a block of its own actor.

    The columns differ in how many of their rows are real: what a mean of means gets wrong.
    """
    rng = np.random.default_rng(seed)
    batch = make_data(spec, seed, size=columns)
    rows = batch.rows
    rows.observations[:] = some_observations(
        spec.observation, *rows.observations.shape[:2], seed=seed
    )
    rows.actions[:] = some_actions(spec.action, *rows.actions.shape[:2], seed=seed)
    if (part := spec.observation.mask_part) is not None:  # only what is allowed is done
        allowed = rows.observations[..., part.start : part.start + part.num_bytes]
        allowed[:] = rng.integers(0, 2, allowed.shape)
        allowed[..., 0] = 1
        rows.actions[:] = allowed[:-1].cumsum(-1, dtype=np.int64).argmax(-1)
    rows.is_first[2, 1] = True
    rows.mask[:] = rng.random(rows.mask.shape) < np.linspace(0.4, 1.0, columns)
    rows.mask[0] = True
    batch.frames = rows.frames
    batch.parts = [Part((f"a{c}", 1), slice(c, c + 1), range(1)) for c in range(columns)]
    batch.blocks = [
        Played(
            *((f"a{c}", 1), 1, True, tuple(batch.episodes[c::columns])),
            tasks=rows.tasks[0, c].tolist(),
        )
        for c in range(columns)
    ]
    return batch


def cut(batch: Batch, ranks: int) -> list[Batch]:
    """The batch in as many parts of as many columns, one for each learner."""
    size = batch.size // ranks
    cuts = []
    for rank in range(ranks):
        columns = np.arange(rank * size, (rank + 1) * size)
        blocks = [batch.blocks[column] for column in columns]
        part = Batch(only(batch.rows, columns), filled=size, versions=[0] * size, blocks=blocks)
        part.frames = part.rows.frames
        part.episodes = [episode for block in blocks for episode in block.episodes]
        part.parts = [
            batch.parts[column]._replace(columns=slice(place, place + 1))
            for place, column in enumerate(columns)
        ]
        cuts.append(part)
    return cuts


def one_learner(spec: RunSpec, config: Config) -> Learner:
    """What a group is compared with."""
    return Learner(config, TorchEngine(spec, config))
