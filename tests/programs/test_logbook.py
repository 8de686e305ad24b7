"""A learner's records: each tells of the time since the one before, per update and per second."""

import contextlib
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.errors import MessageRefused
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.updates import Updated
from impala_redis.common.records.figures import in_status
from impala_redis.common.records.recorder import Recorder
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec
from impala_redis.workers import logbook as logbook_module
from impala_redis.workers import voice
from impala_redis.workers.logbook import Logbook
from impala_redis.workers.plan import Plan

CONFIG = Config().replace({"unroll_length": 2})
SPEC = make_spec("test", CONFIG, ObservationSpec((), "float32"), discrete(2))


# The totals of the threads beside the loop.
FEEDER = ("claim_s", "batch_s", "feeder_cpu_s", "asked", "queued", "claimed")
FEEDER += ("bytes_received", "bytes_opened", "steps_opened")
PUBLISHER = ("publish_s", "publisher_cpu_s", "published")


class Thread:
    """A feeder or a publisher as the logbook sees it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.sums: dict[str, float] = dict.fromkeys(names, 0)
        self.states: dict[str, float] = {}

    def totals(self) -> dict[str, float]:
        return dict(self.sums)

    def figures(self) -> dict[str, float]:
        return self.states

    def add(self, **more: float) -> None:
        """Moves its totals on."""
        for name, amount in more.items():
            self.sums[name] += amount


class Bench:
    """A logbook, with a clock, a learner, a feeder and a publisher that the test moves on."""

    def __init__(self, directory: Path) -> None:
        self.now = 100.0
        self.learner: Any = SimpleNamespace(
            version=10,
            updates=0,
            frames=0,
            skipped=0,
            device_s=0.0,
            window=SimpleNamespace(episodes=0, mean_return=None),
            engine=SimpleNamespace(memory_bytes=lambda: self.held_bytes),
        )
        self.held_bytes: int | None = None  # of a GPU's memory
        self.learner.totals = lambda: {
            name: getattr(self.learner, name) for name in ("frames", "updates", "device_s")
        }
        self.feeder, self.publisher = Thread(FEEDER), Thread(PUBLISHER)
        self.feeder.states = {"queue_blocks": 0, "blocks_refused": 0, "runs_lost": 0}
        self.directory = RunDirectory(directory)

    def open(self, spec: RunSpec = SPEC) -> Logbook:
        plan = Plan("test", None, CONFIG, self.directory)
        self.logbook = Logbook(plan, spec, self.learner)
        return self.logbook

    def update(self, versions: list[int], at: float, frames: int = 100, **figures: float) -> None:
        """An update on trajectories of those versions, made at that moment."""
        self.now = at
        self.learner.version += 1
        self.learner.updates += 1
        self.learner.frames += frames
        batch: Batch = Batch(empty_trajectory(SPEC, len(versions)))
        batch.versions = versions
        self.logbook.note_update(Updated(batch, self.learner.version, figures))

    def record(self, at: float) -> dict[str, Any]:
        """The record that is written at that moment, as it stands in the file."""
        self.now = at
        self.for_status = self.logbook.record(cast(Any, self.feeder), cast(Any, self.publisher))
        found: dict[str, Any] = json.loads(self.directory.metrics.read_bytes().splitlines()[-1])
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Bench(tmp_path)
    clock = SimpleNamespace(monotonic=lambda: made.now, time=lambda: 1e9 + made.now)
    monkeypatch.setattr(logbook_module, "time", clock)
    monkeypatch.setattr(Recorder, "_write_events", lambda _: None)  # TensorBoard is slow to load
    made.open()
    yield made
    made.logbook.close()


def assert_tells(record: dict[str, Any], **expected: float) -> None:
    assert {name: record.get(name) for name in expected} == pytest.approx(expected)


def test_the_lag_is_counted_from_the_version_that_was_updated(bench: Bench) -> None:
    # given a learner at version 10, whose update makes it 11
    bench.update([10], at=101.0)

    # then a trajectory of version 10 was of the newest, as old as that version
    first = bench.record(at=102.0)
    assert_tells(first, policy_lag_max=0, policy_lag_s_max=1.0)

    # and version 11 was made with that update
    bench.update([10, 11], at=103.0)
    second = bench.record(at=104.0)
    assert_tells(second, policy_lag_mean=0.5, policy_lag_max=1)
    assert_tells(second, policy_lag_s_mean=2.5, policy_lag_s_max=3.0)


def test_figures_are_per_update_per_version_and_per_second(bench: Bench) -> None:
    # given 2 s with 4 updates, 3 versions published, and a list of 6 blocks on average
    for _ in range(2):
        bench.logbook.note_wait(0.5, batch_came=True)
    for number in range(4):
        bench.update([10], at=100.5 + number / 4, forward_s=0.1 * number)
    bench.logbook.note_copy(0.01)
    bench.learner.device_s += 1.2
    bench.feeder.add(claim_s=0.8, batch_s=0.4, feeder_cpu_s=0.2, bytes_received=3000)
    bench.feeder.add(asked=10, queued=60, claimed=12)
    bench.feeder.states["queue_blocks"] = 5
    bench.publisher.add(publish_s=0.3, publisher_cpu_s=0.04, published=3)
    bench.publisher.states = {"blocks_produced": 20}

    # when
    record = bench.record(at=102.0)

    # then
    assert_tells(record, time_s=2.0, updates=4, frames=400, weights_version=14, queue_blocks=5)
    assert_tells(record, updates_per_s=2.0, frames_per_s=200.0, published_per_s=1.5)
    assert_tells(record, wait_s=0.25, wait_share=0.5, claim_s=0.2, claim_share=0.4, batch_s=0.1)
    assert_tells(record, publish_s=0.1, publish_share=0.15, received_bytes_per_s=1500.0)
    assert_tells(record, feeder_cpu_s=0.05, publisher_cpu_s=0.01, device_busy_share=0.6)
    assert_tells(record, forward_s=0.15, weights_s=0.01, blocks_produced=20)
    # 6 blocks in the list, and 6 a second taken from it
    assert_tells(record, queue_wait_s=1.0)


def test_an_update_that_ran_as_one_graph_has_its_seconds_and_no_others(bench: Bench) -> None:
    # given a learner on a GPU, whose updates are one CUDA graph each
    bench.held_bytes = 1_300_000_000
    for at, seconds in ((100.5, 0.002), (101.0, 0.004)):
        bench.update([10], at=at, transfer_s=0.001, graph_s=seconds)
    bench.learner.device_s += 0.008
    bench.logbook.note_wait(0.1, batch_came=True)

    # when
    record = bench.record(at=102.0)

    # then
    assert_tells(record, graph_s=0.003, transfer_s=0.001, device_busy_share=0.004)
    assert_tells(record, device_memory_bytes=1_300_000_000)
    assert record.keys().isdisjoint({"forward_s", "backward_s", "optimizer_s"})

    # and impala-status finds what it needs for the stage that binds
    assert_tells(bench.for_status, wait_share=0.05, transfer_s=0.001)
    assert_tells(bench.for_status, updates_per_s=1.0, publish_share=0.0, device_memory_bytes=1.3e9)


def test_a_learner_on_a_cpu_records_no_memory_of_a_device(bench: Bench) -> None:
    assert "device_memory_bytes" not in bench.record(at=101.0)
    assert "device_memory_bytes" not in bench.for_status


def test_bytes_are_per_row_of_the_blocks_since_the_last_record(bench: Bench) -> None:
    # given blocks of an earlier record
    bench.feeder.add(bytes_opened=9_000, steps_opened=10, bytes_received=9_000)
    bench.record(at=101.0)

    # when some come, of which one was refused
    bench.feeder.add(bytes_opened=16_940, steps_opened=2, bytes_received=20_000)

    # then
    assert_tells(bench.record(at=102.0), bytes_per_step=8_470, received_bytes_per_s=20_000)
    assert "bytes_per_step" not in bench.record(at=103.0)


@pytest.mark.parametrize(("env", "repeat"), [("ALE/Pong-v5", 4), ("CartPole-v1", 1)])
def test_frames_are_counted_as_steps_and_as_frames_of_the_game(
    bench: Bench, env: str, repeat: int
) -> None:
    # given
    bench.logbook.close()
    bench.open(dataclasses.replace(SPEC, env=env))

    # when
    bench.update([10], at=101.0, frames=640)

    # then
    assert_tells(bench.record(at=102.0), frames=640, game_frames=640 * repeat)


def test_each_record_begins_anew(bench: Bench) -> None:
    # given a record
    bench.logbook.note_wait(1.5, batch_came=True)
    bench.update([10], at=101.0, forward_s=9.0)
    bench.learner.device_s += 1.2
    bench.feeder.add(claim_s=0.8, batch_s=0.4, feeder_cpu_s=0.2, bytes_received=3000)
    bench.feeder.add(asked=10, queued=60, claimed=12)
    bench.publisher.add(publish_s=0.3, publisher_cpu_s=0.04, published=3)
    bench.record(at=102.0)

    # when a second with 2 updates follows
    bench.logbook.note_wait(0.2, batch_came=True)
    for at in (102.2, 102.4):
        bench.update([11], at=at, frames=50, forward_s=0.1)
        bench.learner.device_s += 0.15
    bench.feeder.add(claim_s=0.4, batch_s=0.2, feeder_cpu_s=0.1, bytes_received=100)
    bench.feeder.add(asked=2, queued=4, claimed=8)
    bench.publisher.add(publish_s=0.2, publisher_cpu_s=0.01, published=1)

    # then the next record is of that second alone
    record = bench.record(at=103.0)
    assert_tells(record, time_s=3.0, updates=3, frames=200)
    assert_tells(record, updates_per_s=2.0, frames_per_s=100.0, published_per_s=1.0)
    assert_tells(record, wait_s=0.1, wait_share=0.2, claim_s=0.2, claim_share=0.4, batch_s=0.1)
    assert_tells(record, publish_s=0.2, publish_share=0.2, received_bytes_per_s=100.0)
    assert_tells(record, feeder_cpu_s=0.05, publisher_cpu_s=0.005, forward_s=0.1)
    assert_tells(record, device_busy_share=0.3)
    assert_tells(record, queue_wait_s=2 / 8)


def test_without_an_update_nothing_is_told_per_update(bench: Bench) -> None:
    # given a learner that waits
    bench.update([10], at=101.0)
    bench.record(at=102.0)
    bench.logbook.note_wait(3.0, batch_came=False)

    # when
    record = bench.record(at=104.0)

    # then it waited all the time, and no more than that
    assert_tells(record, updates_per_s=0.0, frames_per_s=0.0, wait_share=1.0)
    per_something = {"wait_s", "claim_s", "batch_s", "publish_s", "feeder_cpu_s", "queue_wait_s"}
    assert not per_something & set(record)


def test_a_logbook_is_behind_from_an_update_to_its_record(bench: Bench) -> None:
    assert not bench.logbook.behind
    bench.update([10], at=101.0)
    assert bench.logbook.behind
    bench.record(at=102.0)
    assert not bench.logbook.behind


def test_status_gets_those_of_a_records_figures_that_have_a_value(bench: Bench) -> None:
    # given
    bench.logbook.note_wait(0.5, batch_came=True)
    bench.update([10], at=101.0)

    # when
    record = bench.record(at=102.0)

    # then the run's length is among them, and what has no value yet is not
    left = bench.for_status
    assert left.pop("total_frames") == Config().training.total_frames
    assert left == {name: record[name] for name in left}
    expected = {"frames", "updates", "wait_share", "policy_lag_p95", "policy_lag_s_max"}
    assert expected <= set(left)
    assert left.keys() == set(in_status(left))
    assert "mean_return_100" not in left


def test_a_result_reaches_impala_train_however_many_strangers_it_names(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given refused blocks under as many and as long names as are told apart
    for number in range(100):
        error = MessageRefused("malformed", "it is none" * 500)
        error.actor = f"{number:064d}"
        bench.logbook.refusals.note_refusal(error)

    # when the run ends, with or without an error
    with contextlib.closing(voice.Listener()) as listener:
        monkeypatch.setenv(voice.VARIABLE, str(listener.writing))
        voice._descriptor.cache_clear()
        for status, error_text in (("solved", None), ("failed", "x" * 5000)):
            bench.logbook.write_result(cast(Any, status), error_text)

            # then impala-train hears of it
            listener.hear()
            assert listener.result is not None
            assert listener.result["status"] == status
    voice._descriptor.cache_clear()

    # and the whole of it is on disk
    saved = bench.directory.read_result()
    assert saved is not None
    assert len(saved["refused"]["by_actor"]) > 60
