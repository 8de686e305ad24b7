"""What record, log, result, status, panel and report tell of several tasks, and of their score."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from impala_redis.common.errors import ConfigError
from impala_redis.common.records.figures import find
from impala_redis.common.records.history import grouped, read_run
from impala_redis.common.records.recorder import Recorder
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import make_spec
from impala_redis.workers import logbook as logbook_module
from impala_redis.workers import scores, training
from impala_redis.workers.logbook import Logbook
from impala_redis.workers.overview import as_text
from impala_redis.workers.plan import Plan
from impala_redis.workers.progress import Progress
from impala_redis.workers.reporting import charts, pages
from impala_redis.workers.reporting.words import is_slug

TASKS = [
    {"name": "near", "env": "Near-v0", "random": 0.0, "reference": 10.0},
    {"name": "far", "env": "Far-v0", "random": -1.0, "reference": 1.0},
]
TOTALS = "claim_s batch_s feeder_cpu_s asked queued claimed bytes_received bytes_opened "
TOTALS += "steps_opened publish_s publisher_cpu_s published"


def config_of(tasks: list[dict[str, Any]] = TASKS, **changes: Any) -> Config:
    return Config().replace({"unroll_length": 2, "tasks": tasks} | changes)


def learner_with(mean_returns: list[float | None], score: float | None) -> Any:
    """As much of a learner as a logbook asks for."""
    known = [mean for mean in mean_returns if mean is not None]
    mean = sum(known) / len(known) if len(known) == len(mean_returns) else None
    window = SimpleNamespace(episodes=7, mean_return=mean, mean_returns=mean_returns)
    learner = SimpleNamespace(version=1, updates=0, frames=400, skipped=0, window=window)
    learner.task_frames, learner.score = [300, 100], score
    learner.engine = SimpleNamespace(memory_bytes=lambda: None)
    learner.totals = lambda: {"frames": 0, "updates": 0, "device_s": 0}
    return learner


@pytest.mark.parametrize(
    ("mean_returns", "score", "returns", "said"),
    [
        ([5.0, 3.0], 0.75, {"near": 5.0, "far": 3.0}, "return 4.00, score 0.750, policy lag"),
        ([5.0, None], None, {"near": 5.0}, "return -, score -, policy lag"),
    ],
)
def test_a_record_tells_of_each_task_and_of_their_score_when_all_are_known(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mean_returns: list[float | None],
    score: float | None,
    returns: dict[str, float],
    said: str,
) -> None:
    # given a learner of two tasks
    monkeypatch.setattr(logbook_module, "LOG_LINE_INTERVAL_S", 0.0)
    monkeypatch.setattr(Recorder, "_write_events", lambda _: None)  # TensorBoard is slow to load
    caplog.set_level("INFO", "impala_redis")
    config, directory = config_of(), RunDirectory(tmp_path)
    spec = make_spec("test", config, ObservationSpec((), "float32"), discrete(2))
    plan, learner = Plan("test", None, config, directory), learner_with(mean_returns, score)
    logbook = Logbook(plan, spec, learner)

    # when it writes a record and the result
    totals = dict.fromkeys(TOTALS.split(), 0.0)
    thread = cast(Any, SimpleNamespace(figures=lambda: {"queue_blocks": 0}, totals=lambda: totals))
    left = logbook.record(thread, thread)
    logbook.write_result("finished")
    logbook.close()

    # then each task is in the record, in the figures for status, and in the result
    record = json.loads(directory.metrics.read_text())
    told = {name: value for name, value in record.items() if "task" in name or name == "score"}
    told.pop("refused_tasks", None)
    expected = {f"task_return:{name}": mean for name, mean in returns.items()}
    expected |= {"task_score:near": 0.5, "task_frames:near": 300, "task_frames:far": 100}
    expected |= {} if score is None else {"task_score:far": 1.0, "score": score}
    assert told == expected
    assert told.items() <= left.items() and all(find(name) for name in told)
    result = json.loads(directory.result.read_text())
    assert result["score"] == score
    assert [one["name"] for one in result["tasks"]] == ["near", "far"]
    assert result["tasks"][1]["mean_return"] == returns.get("far")

    # and the log tells the score
    assert said in caplog.text


def test_a_goal_for_the_score_ends_the_run_and_needs_tasks() -> None:
    settings = config_of(stop_at_score=0.75).training
    assert training.goal_reached(settings, learner_with([5.0, 2.9], 0.74)) is None
    assert training.goal_reached(settings, learner_with([5.0, None], None)) is None
    assert training.goal_reached(settings, learner_with([5.0, 3.0], 0.75)) == "solved"
    with pytest.raises(ConfigError, match=r"stop_at_score \(0.75\) needs tasks"):
        config_of([], stop_at_score=0.75)
    with pytest.raises(ConfigError, match="stop_at_score"):
        config_of(stop_at_score=1.5)


# Status.


def figures_of(tasks: int) -> dict[str, float]:
    """What the learner of a run of so many tasks leaves in Redis."""
    figures = {"frames": 400.0 * tasks, "mean_return_100": 4.0, "score": 0.75}
    for number in range(tasks):
        name = f"task-{number}"
        figures |= {f"task_return:{name}": 3.0 * number, f"task_score:{name}": number / tasks}
        figures |= {f"task_frames:{name}": 400.0}
    return figures


def status_of(tasks: list[str], figures: dict[str, float]) -> dict[str, Any]:
    """What impala-status has read of a run with these tasks whose learner left these figures."""
    learner = {"holder": "host:7#1.2-3", "epoch": 1, "weights_version": 1, "figures": figures}
    return {
        "books": dict.fromkeys(("produced", "queued", "in_flight"), 0),
        "residual": 0,
        "learner": learner | {"published_unix_s": None},
        "state": "running",
        "bottleneck": "balanced",
        "queue_blocks": 4,
        "actors": {},
        "memory": None,
        "tasks": tasks,
    }


def test_status_has_a_line_for_each_task() -> None:
    names = [f"task-{number}" for number in range(4)]
    left_by_an_earlier_run = {"task_frames:old": 5.0}
    status = status_of(names, figures_of(4) | left_by_an_earlier_run)
    lines = as_text("test", status).splitlines()
    start = lines.index("score    0.750")
    assert lines[start + 1 : start + 5] == [
        "tasks    task-0  return 0.00  score 0.000  400 frames 25.0 %",
        "         task-1  return 3.00  score 0.250  400 frames 25.0 %",
        "         task-2  return 6.00  score 0.500  400 frames 25.0 %",
        "         task-3  return 9.00  score 0.750  400 frames 25.0 %",
    ]
    assert not any(line.startswith("figures") for line in lines)


def test_of_many_tasks_those_that_score_least_have_a_line() -> None:
    names = [*(f"task-{number}" for number in range(128)), "unknown"]
    lines = scores.lines_of(names, figures_of(128) | {"task_frames:unknown": 0.0})
    assert len(lines) == scores.MOST_SHOWN + 1
    assert lines[0].startswith("task-0  ")
    assert lines[-2].startswith("unknown ")  # it has no score yet
    assert lines[-1] == "and 109 more, which score as much or more"


def test_status_of_a_run_without_tasks_has_no_lines_of_them() -> None:
    assert "task" not in as_text("test", status_of([], figures_of(4)))


def test_names_and_counts_that_anybody_may_have_written_do_no_harm() -> None:
    name = "\x1b[2J" + "x" * 100
    figures = {f"task_frames:{name}": 1.0, "task_frames:a": 1e308, "task_frames:b": -1.0}
    (line,) = scores.lines_of([name, "a", "b", "c"], figures)
    assert line.startswith("?[2Jxxx") and len(line) < 100


# The panel of impala-train.


def test_the_panel_shows_each_task_and_how_far_the_score_is_from_its_goal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a record of two tasks
    directory, config = RunDirectory(tmp_path), config_of(stop_at_score=0.9)
    record = {"time_s": 1.0, "frames": 640, "mean_return_100": 4.0, "queue_blocks": 1}
    record |= {"score": 0.75, "task_return:near": 5.0, "task_score:near": 0.5}
    record |= {"task_frames:near": 300, "task_frames:far": 340}
    progress = Progress(directory, config)
    directory.metrics.write_text(json.dumps(record) + "\n")

    # when
    progress.update()
    panel = Console(width=100, file=None, record=True)
    panel.print(progress._panel())
    progress.conclude(0, None, {"status": "solved", "wall_s": 1.0, **record})

    # then
    text = panel.export_text()
    assert "0.750 of 0.9" in text
    assert "near  return 5.00  score 0.500  300 frames 46.9 %" in text
    assert "far   return    -  score     -  340 frames 53.1 %" in text

    # and so do the plain lines, and the last one
    printed = capsys.readouterr().out
    assert "return 4.00, mean score 0.750  lag" in printed
    assert "mean return 4.00 over 100 episodes of each task, mean score 0.750; 640" in printed


# The report.


def written(path: Path, tasks: list[dict[str, Any]]) -> None:
    """A run's directory with four records of these tasks."""
    directory = RunDirectory(path)
    directory.write_config("many", None, config_of(tasks))
    records: list[dict[str, Any]] = []
    for number in range(1, 5):
        record = {"time_s": 5.0 * number, "frames": 800 * number, "updates": number}
        for task in tasks:
            record |= {f"task_frames:{task['name']}": 400 * number}
        if number > 1:  # at first no mean is known
            record |= {"score": number / 10, "mean_return_100": number / 5}
            for task in reversed(tasks):
                record |= {f"task_return:{task['name']}": number / 5, "task_score:far": 0.9}
        records.append(record | {"unix_s": 1e9})
    directory.metrics.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def test_a_report_has_a_chart_and_a_row_for_each_task_in_their_order(tmp_path: Path) -> None:
    # given
    written(tmp_path, TASKS)

    # when
    groups = grouped([read_run(tmp_path)])
    drawn = {drawing.slug: drawing for drawing in charts.draw_all(groups)}
    page = pages.page(groups, [])

    # then
    slugs = [slug for slug, drawing in drawn.items() if drawing.section == "Task by task"]
    assert slugs == ["tasks-score", "task-1", "task-2"]
    assert all(map(is_slug, slugs))
    assert drawn["task-1"].label.startswith("near. Over frames; from 0.4 to 0.8")
    assert "reference 10" in drawn["task-1"].svg
    assert page["title"] == "many: 2 tasks (near, far)"
    assert page["tasks"].rows == [
        ["near", "0.80", "0.00", "10.0", "-", "1,600", "50.0 %"],
        ["far", "0.80", "-1.00", "1.00", "0.900", "1,600", "50.0 %"],
    ]
    assert ("mean score", "0.400") in page["keys"]
    assert "mean return 0.80 over 100 episodes of each task, mean score 0.400" in page["status"]


def test_a_report_of_a_run_without_tasks_says_nothing_of_them(tmp_path: Path) -> None:
    written(tmp_path, [])
    groups = grouped([read_run(tmp_path)])
    page = pages.page(groups, list(charts.draw_all(groups)))
    assert page["tasks"] is None
    assert "100 episodes of each task" not in str(page)
