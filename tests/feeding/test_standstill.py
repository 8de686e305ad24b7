"""No bound on lag, forced lag, publish interval or pace of the parts stops the training.

A run on a simulated clock: when weights are wanted, held back, offered and too old is decided by
the learner's own code; what takes time (to play, train, publish) takes as long as Hypothesis likes.
"""

import itertools
from collections import deque
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import ConfigError
from impala_redis.common.feeding import publisher as publisher_module
from impala_redis.common.feeding.delay import Delay, most_behind
from impala_redis.common.feeding.intake import Intake
from impala_redis.common.feeding.publisher import Publisher
from impala_redis.common.run.config import Config
from impala_redis.workers.training import BATCH_TIMEOUT_S, Training

UPDATES = 60


class Paces(NamedTuple):
    """How long things take in seconds, and how much of what is a batch."""

    unroll_s: float
    update_s: float
    publish_s: float
    actors: int
    blocks_in_a_batch: int
    batches_in_a_block: int
    ahead: int = 0  # updates that may be under way when another begins: 1 on a GPU

    @property
    def longest_pause_s(self) -> float:
        """Between two updates, once new weights must come to the actors first: generously."""
        unrolls = 4 + self.blocks_in_a_batch / self.actors
        return 3 * (self.publish_s + BATCH_TIMEOUT_S) + unrolls * self.unroll_s + 2 * self.update_s


class Simulation:
    """A learner with the real rules, and actors that play without end."""

    def __init__(self, config: Config, paces: Paces, clock: SimpleNamespace) -> None:
        self.paces, self.clock = paces, clock
        self.published = 1
        transport = config.transport
        self.learner: Any = SimpleNamespace(version=1, versioned_weights=self.weights)
        link: Any = SimpleNamespace(publish=self.store, announce=lambda *_: None)
        spec: Any = SimpleNamespace(to_json=str, fingerprint="", envs_per_actor=1)
        behind = most_behind(transport.max_policy_lag, transport.force_lag)
        self.publisher = Publisher(link, spec, transport.publish_interval_s, 10.0, behind)
        self.publisher.introduce(spec, self.weights())
        self.intake = Intake(
            link, spec, transport.max_policy_lag, lambda: self.learner.version, lambda: None
        )
        logbook: Any = SimpleNamespace(note_copy=lambda s: None)
        feeder: Any = None
        self.training = Training(
            spec, "", self.learner, feeder, self.publisher, logbook, Delay(transport.force_lag)
        )
        self.queue: deque[int] = deque(maxlen=config.transport.queue_blocks)  # versions
        self.ready = self.filled = self.left_of_block = 0
        self.updated_at: list[float] = [0.0]

    def weights(self) -> VersionedWeights:
        return VersionedWeights(self.learner.version, {"w": np.zeros(1, np.float32)})

    def store(self, version: int, message: bytes) -> None:
        assert version >= self.published  # the first time the same, as it is introduced
        self.published = version

    def fill(self, training: int) -> None:
        """What the feeder does at once: opens blocks while a batch is free."""
        batches = 2 + self.paces.ahead
        while self.ready + training < batches and (self.left_of_block or self.queue):
            if self.left_of_block:
                self.left_of_block -= 1
                self.filled = self.paces.blocks_in_a_batch
            elif not self.intake.is_stale(self.queue.popleft()):
                self.left_of_block = self.paces.batches_in_a_block - 1
                self.filled += 1
            if self.filled >= self.paces.blocks_in_a_batch:
                self.ready, self.filled = self.ready + 1, 0

    def run(self) -> None:
        """Plays and trains until `UPDATES`; fails at a pause that is too long."""
        paces, clock = self.paces, self.clock
        starts = itertools.cycle(range(paces.actors))
        acting = [[next(starts) / paces.actors * paces.unroll_s, 1] for _ in range(paces.actors)]
        under_way: deque[float] = deque()  # when these updates end
        busy_until: float | None = None  # the learner: until no more than `ahead` are under way
        publishing_at: float | None = None
        idle_until = np.inf
        while len(self.updated_at) <= UPDATES:
            self.fill(len(under_way))
            if busy_until is None and self.ready:
                self.ready -= 1
                under_way.append(max(clock.now, *under_way, 0.0) + paces.update_s)
                busy_until = max(clock.now, *[*under_way][: len(under_way) - paces.ahead], 0.0)
                self.learner.version += 1
            if publishing_at is None and self.publisher._offered is not None:
                publishing_at = clock.now + paces.publish_s
            if busy_until is not None:
                idle_until = np.inf
            elif idle_until <= clock.now or idle_until == np.inf:
                idle_until = clock.now + BATCH_TIMEOUT_S
            ends = [end for end, _ in acting]
            clock.now = min(*ends, idle_until, busy_until or np.inf, publishing_at or np.inf)
            for actor in acting:
                if clock.now >= actor[0]:
                    self.queue.append(int(actor[1]))
                    actor[:] = [clock.now + paces.unroll_s, self.published]
            if publishing_at is not None and clock.now >= publishing_at:
                publishing_at, offered = None, self.publisher._offered
                assert offered is not None
                self.publisher._publish_offered(offered)
            if busy_until is not None and clock.now >= busy_until:
                busy_until = None
                while len(under_way) > paces.ahead:
                    under_way.popleft()
                self.updated_at.append(clock.now)
                self.training.offer_weights()
            elif clock.now >= idle_until and all(end <= clock.now for end in under_way):
                under_way.clear()
                self.training.offer_weights()
            pause_s = clock.now - self.updated_at[-1]
            assert pause_s <= paces.longest_pause_s, (len(self.updated_at), self.published)


def simulate(config: Config, paces: Paces, patch: pytest.MonkeyPatch) -> Simulation:
    clock = SimpleNamespace(now=0.0)
    simulated = SimpleNamespace(
        monotonic=lambda: clock.now, perf_counter=lambda: clock.now, thread_time=lambda: 0.0
    )
    patch.setattr(publisher_module, "time", simulated)
    patch.setattr(publisher_module.wire, "pack_weights", lambda *_: b"")
    simulation = Simulation(config, paces, clock)
    simulation.run()
    return simulation


PACES = st.builds(
    Paces,
    unroll_s=st.floats(0.001, 5.0),
    update_s=st.floats(0.001, 3.0),
    publish_s=st.floats(0.001, 3.0),
    actors=st.integers(1, 4),
    blocks_in_a_batch=st.integers(1, 4),
    batches_in_a_block=st.just(1),
    ahead=st.integers(0, 1),
) | st.builds(
    Paces,
    unroll_s=st.floats(0.001, 5.0),
    update_s=st.floats(0.001, 3.0),
    publish_s=st.floats(0.001, 3.0),
    actors=st.integers(1, 4),
    blocks_in_a_batch=st.just(1),
    batches_in_a_block=st.integers(1, 4),
    ahead=st.integers(0, 1),
)


@given(
    bound=st.none() | st.integers(0, 40),
    forced=st.integers(0, 40),
    interval_s=st.sampled_from([0.0, 0.02, 0.2, 1.0, 10.0, 3600.0, 1e9]),
    queue_blocks=st.integers(1, 8),
    paces=PACES,
)
@settings(
    max_examples=300, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_training_goes_on_whatever_the_settings_and_paces(
    bound: int | None, forced: int, interval_s: float, queue_blocks: int, paces: Paces
) -> None:
    values = {
        "max_policy_lag": bound,
        "force_lag": forced,
        "publish_interval_s": interval_s,
        "queue_blocks": queue_blocks,
    }
    try:
        config = Config().replace(values)
    except ConfigError:
        assume(False)
    with pytest.MonkeyPatch.context() as patch:
        simulate(config, paces, patch)


@pytest.mark.parametrize(
    "values",
    [
        {"max_policy_lag": 0},
        {"max_policy_lag": 20, "publish_interval_s": 1.0},
        {"max_policy_lag": 7, "publish_interval_s": 0.2},
        {"max_policy_lag": 6, "force_lag": 5},
        {"max_policy_lag": 21, "force_lag": 20, "publish_interval_s": 10.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("ahead", [0, 1])
def test_what_once_stopped_a_fast_learner_does_not(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], ahead: int
) -> None:
    paces = Paces(0.01, 0.002, 0.005, 2, 1, 1, ahead)
    simulate(Config().replace(values), paces, monkeypatch)


def test_a_forced_lag_is_kept_by_an_idle_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    # given updates that are slower than the actors, and now and then an idle learner
    config = Config().replace({"force_lag": 5})
    simulation = simulate(config, Paces(1.0, 0.01, 0.01, 1, 1, 1), monkeypatch)

    # then what is published is five updates old, not newer
    assert simulation.learner.version - simulation.published in (5, 6)
