"""What records, log, status and report tell of a group of learners, and of a slow one in it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from impala_redis.common.records.figures import find
from impala_redis.common.records.history import grouped, read_run
from impala_redis.common.records.recorder import Recorder
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import make_spec
from impala_redis.common.transport.situation import (
    STANDBY_SHARE,
    WAIT_SHARE,
    shares_by_rank,
    slow_rank,
    slow_rank_in,
    summary,
)
from impala_redis.workers import logbook as logbook_module
from impala_redis.workers import progress
from impala_redis.workers.logbook import Logbook
from impala_redis.workers.overview import as_text
from impala_redis.workers.plan import Plan
from impala_redis.workers.reporting import charts, pages

# A learner that has nothing to do but to be one of a group.
TOTALS = "claim_s batch_s feeder_cpu_s asked queued claimed bytes_received bytes_opened "
TOTALS += "steps_opened publish_s publisher_cpu_s published"


def figures_of(waits: list[float], standby: list[float], **more: float) -> dict[str, float]:
    """What the records of a group hold."""
    return {
        "ranks": float(len(waits)),
        **{f"{WAIT_SHARE}{rank}": share for rank, share in enumerate(waits)},
        **{f"{STANDBY_SHARE}{rank}": share for rank, share in enumerate(standby)},
        **more,
    }


def test_the_slow_rank_is_the_one_that_stands_by_least() -> None:
    assert slow_rank({0: 0.35, 1: 0.36, 2: 0.01, 3: 0.35}) == 2
    assert slow_rank({0: 0.5, 1: 0.0, 2: 0.0}) == 1
    # but none is, where all of them wait for each other, or nobody does
    assert slow_rank({0: 0.31, 1: 0.35}) is None
    assert slow_rank({0: 0.0, 1: 0.09}) is None
    assert slow_rank({0: 0.0}) is slow_rank({}) is None


@pytest.mark.parametrize(("others_wait", "named"), [(0.05, 1), (0.3, None)])
def test_no_rank_is_slow_where_others_lack_batches_as_well(
    others_wait: float, named: int | None
) -> None:
    waits = {f"{WAIT_SHARE}0": others_wait, f"{WAIT_SHARE}1": 0.45}
    slow = slow_rank_in({f"{STANDBY_SHARE}0": 0.5, f"{STANDBY_SHARE}1": 0.1} | waits)
    assert (slow and slow.rank) == named


def test_shares_that_anybody_may_have_written_are_bounded() -> None:
    names = ("1", "0", "128", "01", "-1", "1.0", "\u0663", "x" * 200, "", "*")
    written = {f"{WAIT_SHARE}{name}": 1e308 for name in names} | {f"{WAIT_SHARE}2": -5.0}
    written |= {f"{WAIT_SHARE}3": float("nan")}
    written |= {f"{WAIT_SHARE}4": cast(Any, "0.5")}
    assert shares_by_rank(written | {"wait_share": 0.5}, WAIT_SHARE) == {0: 1.0, 1: 1.0, 2: 0.0}


# Records.


class Clock:
    """A logbook's clock, moved on by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(logbook_module, "time", made)
    monkeypatch.setattr(logbook_module, "LOG_LINE_INTERVAL_S", 0.0)
    monkeypatch.setattr(Recorder, "_write_events", lambda _: None)  # TensorBoard is slow to load
    return made


def logbook_in(path: Path) -> Logbook:
    config = Config().replace({"unroll_length": 2})
    spec = make_spec("test", config, ObservationSpec((), "float32"), discrete(2))
    window = SimpleNamespace(episodes=0, mean_return=None)
    learner: Any = SimpleNamespace(version=1, updates=0, frames=0, skipped=0, window=window)
    learner.engine = SimpleNamespace(memory_bytes=lambda: None)
    learner.totals = lambda: {"frames": 0, "updates": 0, "device_s": 0}
    return Logbook(Plan("test", None, config, RunDirectory(path)), spec, learner)


def record_of(logbook: Logbook, path: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The record that is written now, as the file has it, and what goes to status."""
    totals = dict.fromkeys(TOTALS.split(), 0.0)
    thread = SimpleNamespace(figures=lambda: {"queue_blocks": 0}, totals=lambda: totals)
    left = logbook.record(cast(Any, thread), cast(Any, thread))
    return json.loads((path / "metrics.jsonl").read_bytes().splitlines()[-1]), left


def test_a_record_tells_the_shares_of_the_last_seconds(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    # given two ranks, whose waits are told as sums since the start
    logbook = logbook_in(tmp_path)
    caplog.set_level("INFO", "impala_redis")

    # when 10 s pass, and two times 4 more, in which rank 1 was without a batch for all of the time
    clock.now += 10.0
    logbook.note_ranks([1.0, 5.0], [4.0, 0.0])
    first, left = record_of(logbook, tmp_path)
    clock.now += 4.0
    logbook.note_ranks([1.0, 9.1], [8.0, 0.0])
    record_of(logbook, tmp_path)
    clock.now += 4.0
    logbook.note_ranks([1.0, 13.1], [10.0, 0.0])
    last, _ = record_of(logbook, tmp_path)

    # then a record tells of its own time, or of 5 s and more, in figures that are shown in status
    told = {name: value for name, value in first.items() if "rank" in name or ":" in name}
    assert told == pytest.approx(figures_of([0.1, 0.5], [0.4, 0.0]))
    assert told.items() <= left.items()
    told = {name: value for name, value in last.items() if "rank" in name or ":" in name}
    assert told == pytest.approx(figures_of([0.0, 1.0], [0.75, 0.0]))
    assert all(find(name) for name in told)

    # and so do the log, and the result
    assert "rank 1 is slow: the other stands by for it 75 % of the time" in caplog.text
    logbook.write_result("finished")
    assert json.loads((tmp_path / "result.json").read_bytes())["ranks"] == 2
    logbook.close()


def test_one_learner_alone_is_no_group(tmp_path: Path, clock: Clock) -> None:
    # given a learner without company, or one that torchrun has started alone
    logbook = logbook_in(tmp_path)
    for noted in (False, True):
        if noted:
            logbook.note_ranks([1.0], [0.0])

        # when
        clock.now += 10.0
        record, _ = record_of(logbook, tmp_path)
        logbook.write_result("finished")

        # then
        assert not [name for name in record if "rank" in name or ":" in name]
        assert "ranks" not in json.loads((tmp_path / "result.json").read_bytes())
    logbook.close()


# Status.


def status_of(figures: dict[str, float]) -> dict[str, Any]:
    """What two looks at a run say whose learner left these figures."""
    names = "produced consumed dropped_oldest dead_lettered stale_rejected abandoned queued foreign"
    books = dict.fromkeys(names.split(), 0)
    reading = {
        "books": books | {"in_flight": 1, "generation": "g"},
        "residual": 0,
        "learner": {"holder": "h:7#1.2-3", "epoch": 1, "weights_version": 1, "figures": figures},
        "state": "running",
        "queue_blocks": 4,
        "actors": {"a": {}},
        "memory": None,
    }
    return summary([reading | {"at": 0.0}, reading | {"at": 1.0}])


def test_status_names_the_group_each_ranks_wait_and_the_slow_one() -> None:
    # given
    figures = figures_of([0.03, 0.01, 0.0, 0.02], [0.36, 0.34, 0.01, 0.35], wait_share=0.03)

    # when
    status = status_of(figures)
    lines = as_text("pong", status).splitlines()

    # then
    slow = "rank 2 is slow: the others stand by for it 35 % of the time"
    assert lines[1].startswith(f"verdict  rank-bound: {slow}; look at what else its processors")
    assert lines[2:4] == [
        "learner  group of 4, h:7, epoch 1; rank 0 waits 3 %",
        f"ranks    without a batch 3, 1, 0, 2 % of the time; {slow}",
    ]
    assert not [line for line in lines if line.startswith("figures")]
    assert status["slow_rank"]["rank"] == 2
    assert json.loads(json.dumps(status))["learner"]["figures"]["standby_share:2"] == 0.01


def test_the_remedy_is_that_of_the_slow_rank_and_too_few_actors_come_first() -> None:
    lacks = status_of(figures_of([0.02, 0.6], [0.55, 0.0], wait_share=0.02))
    assert "it has no batch 60 % of the time, so look at its way" in lacks["bottleneck"]
    first = status_of(figures_of([0.02, 0.02], [0.0, 0.4], wait_share=0.02))
    assert first["bottleneck"].endswith(
        "it also publishes and saves, so give its processors "
        "nothing else to do, or give --publish-interval-s"
    )
    few = status_of(figures_of([0.7, 0.5], [0.0, 0.2], wait_share=0.7))
    assert few["bottleneck"].startswith("actor-bound")
    assert "is slow" not in as_text("pong", few)


def test_the_panel_of_a_training_names_the_slow_rank_in_place_of_a_stage() -> None:
    figures = figures_of([0.0, 0.0], [0.0, 0.4], wait_share=0.0, dropped_share=0.0)
    assert progress._binding(figures) == "rank 0 40%"


def test_a_large_group_and_a_made_up_one_take_no_more_room() -> None:
    waits = [rank / 100 for rank in range(64)]
    lines = as_text("pong", status_of(figures_of(waits, [0.0] * 64))).splitlines()
    assert "ranks    without a batch 0 % (rank 0) to 63 % (rank 63) of the time" in lines
    assert max(map(len, lines)) < 160
    made_up = {"ranks": 1e308, f"{WAIT_SHARE}0": 0.5, f"{STANDBY_SHARE}\x1b[2J": 0.5}
    text = as_text("pong", status_of(made_up))
    assert "\nranks" not in text
    assert "group" not in text


# The report.


def written(path: Path, figures: dict[str, float]) -> None:
    """A run's directory with four records of these figures."""
    directory = RunDirectory(path)
    directory.write_config("pong", None, Config())
    records = [
        {"time_s": 5.0 * n, "frames": 100 * n, "updates": n, "unix_s": 1e9, **figures}
        for n in range(1, 5)
    ]
    directory.metrics.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def test_a_report_draws_the_ranks_and_names_the_slow_one_with_a_remedy(tmp_path: Path) -> None:
    # given
    figures = figures_of([0.02] * 3, [0.3, 0.0, 0.4], wait_share=0.02, dropped_share=0.0)
    written(tmp_path, figures)

    # when
    groups = grouped([read_run(tmp_path)])
    drawn = {drawing.slug: drawing.label for drawing in charts.draw_all(groups)}
    page = pages.page(groups, [])

    # then
    assert "rank 1: from 0 to 0, at the end 0" in drawn["ranks-stand-by"]
    assert "rank 2: from 40 to 40, at the end 40" in drawn["ranks-stand-by"]
    assert "rank 2: from 2 to 2, at the end 2" in drawn["ranks-wait"]
    held_up = page["findings"][0]["sentences"]
    assert held_up[0].startswith("Rank-bound: rank 1 is slow: the others stand by for it 35 %")
    assert held_up[0].endswith(
        "; look at what else its processors or its GPU do, and give all ranks equal ones."
    )
    assert held_up[1] == "Rank 0 of the group was without a batch for 2.0 % of its time."
    assert ("learners", "3") in page["keys"]
    assert any("policy lag, actors, refused columns" in note for note in page["notes"])


def test_a_report_of_one_learner_says_nothing_of_ranks(tmp_path: Path) -> None:
    written(tmp_path, {"wait_share": 0.02, "dropped_share": 0.0})
    groups = grouped([read_run(tmp_path)])
    slugs = [drawing.slug for drawing in charts.draw_all(groups)]
    assert slugs
    assert not [slug for slug in slugs if "rank" in slug]
    assert "ank" not in str(pages.page(groups, []))
