"""Means, the window of episodes, and the records a run leaves."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from impala_redis.common.blocks.trajectory import Episode
from impala_redis.common.records import recorder as metrics
from impala_redis.common.records.recorder import EPISODE_WINDOW, EpisodeWindow, Means, Recorder


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """The records, read by the letter of the JSON standard: no NaN, no Infinity."""

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    text = (run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float, float]]]:
    """What TensorBoard shows: (step, seconds, value) of every tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run_dir))
    accumulator.Reload()
    return {
        tag: [(event.step, event.wall_time, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def test_means_are_over_what_was_added_of_each_figure() -> None:
    # given
    means = Means()

    # when
    means.add({"loss": 1.0, "entropy": 5.0})
    means.add({"loss": 2.0})
    means.add({"loss": 6.0, "lag": 3})

    # then
    assert means.take() == {"loss": 3.0, "entropy": 5.0, "lag": 3.0}


def test_of_extremes_the_extreme_is_told() -> None:
    # given
    means = Means()

    # when
    for least, most in ((0.5, 1.5), (0.2, 9.0), (0.4, 2.0)):
        means.add({"rho_min": least, "rho_max": most})

    # then
    assert means.take() == {"rho_min": 0.2, "rho_max": 9.0}


def test_taking_the_means_starts_anew() -> None:
    # given
    means = Means()
    means.add({"loss": 1.0, "entropy": 5.0})
    means.take()

    # when
    means.add({"loss": 7.0})

    # then
    assert means.take() == {"loss": 7.0}
    assert means.take() == {}


def test_a_figure_that_is_not_finite_is_left_out_of_the_mean() -> None:
    means = Means()
    means.add({"loss": 1.0, "entropy": math.inf})
    means.add({"loss": math.nan, "entropy": math.nan})
    means.add({"loss": 3.0})
    assert means.take() == {"loss": 2.0}


def test_there_is_no_mean_return_before_100_episodes() -> None:
    # given
    window = EpisodeWindow()

    # when
    window.add(Episode(2.0, 1) for _ in range(EPISODE_WINDOW - 1))

    # then
    assert EPISODE_WINDOW == 100
    assert window.mean_return is None
    window.add([Episode(102.0, 1)])
    assert window.mean_return == 3.0
    assert window.episodes == 100


def test_the_mean_return_is_of_the_last_100_episodes() -> None:
    # given
    window = EpisodeWindow()

    # when
    window.add(Episode(float(i), 1) for i in range(250))

    # then
    assert window.mean_return == sum(range(150, 250)) / 100
    assert list(window.returns) == [float(i) for i in range(150, 250)]
    assert window.episodes == 250


def test_a_window_of_zero_returns_has_a_mean_of_zero() -> None:
    assert EpisodeWindow([0.0] * 100, 100).mean_return == 0.0


def test_a_restored_window_goes_on_where_it_was() -> None:
    # given
    window = EpisodeWindow()
    window.add(Episode(float(i), 1) for i in range(130))

    # when
    restored = EpisodeWindow(list(window.returns), window.episodes)
    for each in (window, restored):
        each.add([Episode(-5.0, 1)])

    # then
    assert restored.mean_return == window.mean_return
    assert restored.episodes == window.episodes == 131


def record(**figures: Any) -> dict[str, Any]:
    return {"unix_s": 1_000_000.5, "frames": 10, **figures}


def test_a_record_is_one_line_of_json_without_what_has_no_value(tmp_path: Path) -> None:
    # given
    recorder = Recorder(tmp_path)

    # when
    recorder.record(
        record(
            mean_return_100=None,
            loss=float("nan"),
            rho_max=float("inf"),
            rho_min=-float("inf"),
            entropy=0.5,
            episodes=0,
            note="two\nlines",
        )
    )
    recorder.record(record(frames=20, mean_return_100=9.5))
    recorder.close()

    # then
    assert lines(tmp_path) == [
        {"unix_s": 1_000_000.5, "frames": 10, "entropy": 0.5, "episodes": 0, "note": "two\nlines"},
        {"unix_s": 1_000_000.5, "frames": 20, "mean_return_100": 9.5},
    ]


def test_a_record_can_be_read_as_soon_as_it_is_made(tmp_path: Path) -> None:
    # given
    recorder = Recorder(tmp_path)

    # when
    recorder.record(record())

    # then
    assert len(lines(tmp_path)) == 1
    recorder.close()


def test_a_resumed_run_goes_on_after_the_record_of_its_checkpoint(tmp_path: Path) -> None:
    # given a run that was killed some time after its last checkpoint, of 2 updates
    recorder = Recorder(tmp_path)
    for updates in (1, 2, 3):
        recorder.record(record(frames=10 * updates, updates=updates, time_s=float(updates)))
    recorder.close()

    # when it is resumed there
    recorder = Recorder(tmp_path, updates=2)
    time_s = recorder.time_s
    recorder.record(record(frames=25, updates=3, time_s=time_s + 0.5))
    recorder.close()

    # then what it repeats is recorded once, and time goes on
    assert [line["frames"] for line in lines(tmp_path)] == [10, 20, 25]
    assert [line["time_s"] for line in lines(tmp_path)] == [1.0, 2.0, 2.5]


def test_a_run_killed_while_it_wrote_loses_that_record_only(tmp_path: Path) -> None:
    # given
    (tmp_path / "metrics.jsonl").write_text('{"frames": 10, "updates": 1}\n{"frames": 2')

    # when
    recorder = Recorder(tmp_path, updates=1)
    recorder.record(record(frames=30))
    recorder.close()

    # then
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.splitlines()[0] == '{"frames": 10, "updates": 1}'
    assert len(text.splitlines()) == 2
    assert json.loads(text.splitlines()[-1])["frames"] == 30


@pytest.mark.parametrize("after_s", [-1.0, 5.0], ids=["as it goes", "at the end"])
def test_tensorboard_reads_the_same_figures_over_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_s: float
) -> None:
    # given
    monkeypatch.setattr(metrics, "TENSORBOARD_AFTER_S", after_s)
    recorder = Recorder(tmp_path)

    # when
    recorder.record(record(frames=10, loss=0.5, mean_return_100=None, note="text"))
    recorder.record(record(frames=30, loss=0.25, mean_return_100=9.0))
    recorder.close()

    # then
    assert scalars(tmp_path) == {
        "loss": [(10, 1_000_000.5, 0.5), (30, 1_000_000.5, 0.25)],
        "mean_return_100": [(30, 1_000_000.5, 9.0)],
    }


def test_a_run_without_a_record_leaves_an_empty_file(tmp_path: Path) -> None:
    # when
    Recorder(tmp_path).close()

    # then
    assert lines(tmp_path) == []
    assert scalars(tmp_path) == {}
