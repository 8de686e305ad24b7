"""scripts/bench/scores.py: scores of tasks at equal frames, over seeds."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from impala_redis.common.records.history import read_run
from impala_redis.common.tasks.task import Task
from support import ROOT

NEAR, FAR = Task("near", "Near-v0"), Task("far", "Far-v0")


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("bench.scores")


def run_of(folder: Path, records: list[dict[str, float]]) -> Any:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    return read_run(folder)


def found_by(scores: Any, folder: Path) -> list[Any]:
    """A network for both tasks and experts, of two seeds each."""
    found = []
    for seed, more in enumerate((0.0, 0.2)):
        together = [
            {"frames": 100, "task_frames:near": 60, "task_frames:far": 40},
            {"frames": 200, "task_frames:near": 100, "task_frames:far": 100},
        ]
        together[0] |= {"task_score:near": 0.2 + more}
        together[1] |= {"task_score:near": 0.6 + more, "task_score:far": 1.5}
        run = run_of(folder / f"together-{seed}", together)
        found += [scores.trained("together", run, task, seed) for task in (NEAR, FAR)]
        for task in (NEAR, FAR):
            records = [{"frames": n, f"task_score:{task.name}": n / 200} for n in (50, 100)]
            run = run_of(folder / f"{task.name}-{seed}", records)
            found.append(scores.trained("expert", run, task, seed))
    return found


def test_scores_are_told_at_the_same_frames_of_each_task(scores: Any, tmp_path: Path) -> None:
    # given
    ways = {"together": scores.Way("one", "#000000"), "expert": scores.Way("own", "#111111")}
    found = found_by(scores, tmp_path)

    # when
    first, second = scores.table(found, ways, [60, 100]).split("\n\n")

    # then a task that has no score yet has 0, and none has more than 1
    assert "| after 60 frames of each task | one | own |" in first
    assert "| near | 0.300 ± 1.271 | 0.250 ± 0.000 |" in first
    assert "| far | 0.000 ± 0.000 | 0.250 ± 0.000 |" in first
    assert "| near | 0.700 ± 1.271 | 0.500 ± 0.000 |" in second
    assert "| far | 1.000 ± 0.000 | 0.500 ± 0.000 |" in second
    assert "| **mean** | **0.850 ± 0.635** | **0.500 ± 0.000** |" in second


def test_a_way_with_the_frames_of_all_tasks_is_told_by_their_share(
    scores: Any, tmp_path: Path
) -> None:
    # given experts that had twice the frames
    found = [one for one in found_by(scores, tmp_path) if one.way == "expert"]
    ways = {"expert": scores.Way("all columns", "#000000", 2)}

    # then half of it stands for half
    assert scores.by_seed(found, ways, "expert", ["near"], 25) == [0.25, 0.25]
    assert scores.by_seed(found, ways, "expert", ["near", "far"], 50) == [0.5, 0.5]


def test_the_curves_are_drawn_and_what_is_kept_can_be_drawn_again(
    scores: Any, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    # given
    ways = {"together": scores.Way("one", "#000000"), "expert": scores.Way("own", "#111111")}
    found = found_by(scores, tmp_path)

    # when
    scores.draw(found, ways, 100.0, tmp_path / "scores.svg")

    # then
    assert (tmp_path / "scores.svg").read_text().count("</svg>") == 1
    kept = scores.kept(found[0], "suite")
    assert (kept["way"], kept["task"], kept["seed"]) == ("together", "near", 0)
    assert (kept["task_frames"][-1], kept["task_score"][-1]) == (100, 0.6)
    assert len(kept["task_frames"]) == len(kept["task_score"]) == scores.KEPT
