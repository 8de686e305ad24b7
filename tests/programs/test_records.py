"""What a run leaves in its records: every figure of the table, under the same names."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from impala_redis.common.records.figures import FIGURES
from support import Programs

pytestmark = pytest.mark.processes

FORCED_LAG = 5


# CartPole has two actions, and they are no numbers.
NAMES = FIGURES.keys() - {"pi_mean_*", "policy_std", "episode_info:*"} | {"pi_mean_0", "pi_mean_1"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with two actors, half of each batch replayed, and a forced lag."""
    folder = tmp_path_factory.mktemp("records")
    command = ["impala-train", "--preset", "cartpole", "--run-dir", str(folder / "run")]
    command += ["--total-frames", "300000", "--stop-at-return", "none", "--num-actors", "2"]
    command += ["--envs-per-actor", "32", "--batch-size", "32", "--queue-blocks", "4"]
    command += ["--force-lag", str(FORCED_LAG), "--replay-share", "0.5", "--lease-s", "1"]
    programs = Programs(folder)
    try:
        code, output = programs.run(*command)
    finally:
        programs.end()
    assert code == 0, output
    return folder / "run"


@pytest.fixture(scope="module")
def records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def values(records: list[dict[str, Any]], name: str) -> list[float]:
    return [record[name] for record in records if name in record]


def test_the_records_hold_exactly_the_figures_of_the_table(
    records: list[dict[str, Any]],
) -> None:
    # but for what only a GPU has, a group of learners, several tasks, a member of a population, or
    # a run that normalises its rewards
    of_gpu, of_group = {"graph_s", "device_memory_bytes"}, {"ranks", "exchange_s"}
    of_ranks = {"wait_share:*", "standby_share:*"}
    normalising = {"reward_std", "popart_std", "popart_std:*"}
    of_tasks = {"score", "task_return:*", "task_score:*", "task_frames:*", "population:*"}
    others = of_gpu | of_group | of_ranks | of_tasks | normalising
    assert set().union(*records) == NAMES - others


def test_no_record_holds_what_is_not_a_number(records: list[dict[str, Any]]) -> None:
    for record in records:
        for name, value in record.items():
            several = value if isinstance(value, list) else [value]
            assert all(math.isfinite(one) for one in several), name


def test_tensorboard_has_the_same_names(run_dir: Path, records: list[dict[str, Any]]) -> None:
    accumulator = EventAccumulator(str(run_dir))
    accumulator.Reload()
    over = {"frames", "unix_s"}  # the axis, and the event's own time
    assert set(accumulator.Tags()["scalars"]) == (
        set().union(*records) - over - {"episode_returns"}
    )


def test_least_mean_and_greatest_are_in_order(records: list[dict[str, Any]]) -> None:
    for name in ("rho", "actor_frames_per_s", "episode_return"):
        triples = [[r.get(f"{name}_{of}") for of in ("min", "mean", "max")] for r in records]
        complete = [t for t in triples if None not in t]
        assert complete and all(t == sorted(t) for t in complete), name


def test_rates_and_times_fit_each_other(records: list[dict[str, Any]]) -> None:
    for before, record in itertools.pairwise(records):
        elapsed_s = record["time_s"] - before["time_s"]
        updates = record["updates"] - before["updates"]
        if updates and elapsed_s > 0.05:  # times are rounded to a millisecond
            assert record["updates_per_s"] == pytest.approx(updates / elapsed_s, rel=0.1)
            waited_s = record["wait_s"] * updates
            assert waited_s == pytest.approx(record["wait_share"] * elapsed_s, rel=0.1, abs=1e-3)


def test_both_actors_are_seen(records: list[dict[str, Any]]) -> None:
    assert max(values(records, "actors")) == 2


def test_shares_are_between_nothing_and_all(records: list[dict[str, Any]]) -> None:
    names = [name for name in NAMES if name.endswith("_share")]
    assert all(0.0 <= value <= 1.0 for name in names for value in values(records, name)), names


def test_the_policy_lag_is_at_least_what_was_forced(records: list[dict[str, Any]]) -> None:
    # at first there are no older weights to give
    late = records[len(records) // 2 :]
    assert min(values(late, "policy_lag_mean")) >= FORCED_LAG
    assert min(values(late, "policy_lag_s_mean")) > 0.0


def test_replayed_trajectories_are_half_of_a_batch_and_older(
    records: list[dict[str, Any]],
) -> None:
    late = records[len(records) // 2 :]
    assert set(values(late, "replay_share")) == {0.5}
    older, fresh = values(late, "replay_lag_mean"), values(late, "policy_lag_mean")
    assert sum(older) / len(older) > sum(fresh) / len(fresh)


def test_every_frame_that_was_trained_on_was_fresh(records: list[dict[str, Any]]) -> None:
    # 16 fresh columns of 20 rows in an update, 32 in those before the memory held enough
    last = records[-1]
    assert last["frames"] <= 320 * last["updates"] + 5 * 320
