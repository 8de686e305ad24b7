"""The records that a run leaves, in its file and in TensorBoard."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from impala_redis.common.records import recorder as metrics
from impala_redis.common.records.recorder import Recorder


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


# A disk without room.


def test_a_record_that_finds_no_room_is_lost_whole_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given a file that may grow by half a record
    recorder = Recorder(tmp_path)
    recorder.record(record(frames=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "metrics.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + size // 2, hard))

    # when records come
    try:
        for frames in (2, 3, 4):
            recorder.record(record(frames=frames))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caplog.text.count("RECORDS ARE LOST, metrics.jsonl cannot be written") == 1
    recorder.record(record(frames=5))
    recorder.record(record(frames=6))

    # then those that are there are whole, and the loss is known
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["frames"] for line in lines] == [1, 5, 6]
    assert recorder.lost == 3
    assert caplog.text.count("records are written again, 3 were lost up to now") == 1
    recorder._events_failed = True
    recorder.close()
