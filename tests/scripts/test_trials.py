"""scripts/bench/trials.py: what many trainings come to, and which need not be made again."""

import importlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support import ROOT


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("bench.trials")


def write_records(folder: Path, *records: dict[str, float]) -> None:
    lines = [json.dumps(record) for record in records]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_late_returns_count_by_the_episodes_that_they_are_of(trials: Any, tmp_path: Path) -> None:
    # given an early record, then 5 and 20 episodes, and a record in which none ended
    write_records(
        tmp_path,
        {"frames": 400, "episodes": 100, "episode_return_mean": 1000.0},
        {"frames": 600, "episodes": 105, "episode_return_mean": 10.0},
        {"frames": 900, "episodes": 125, "episode_return_mean": 20.0},
        {"frames": 1000, "episodes": 125},
    )

    # when
    mean = trials.late_return(trials.read_run(tmp_path), 0.5)

    # then
    assert mean == pytest.approx((5 * 10 + 20 * 20) / 25)


def test_an_estimate_is_a_mean_and_half_its_interval(trials: Any) -> None:
    found = trials.estimate([1.0, 2.0, 3.0])
    assert found == pytest.approx((2.0, 4.30 / 3**0.5), abs=0.005)
    assert str(found) == "2.0 ± 2.5"


class Trainer:
    """Stands in for impala-train: leaves a run's files, and counts."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.status, self.returncode = "finished", 0

    def run(self, command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        self.calls.append(command)
        folder = Path(command[command.index("--run-dir") + 1])
        assert not folder.exists()  # nothing of an earlier training is left
        folder.mkdir()
        write_records(folder, {"frames": 1, "episodes": 1})
        (folder / "result.json").write_text(json.dumps({"status": self.status}))
        return subprocess.CompletedProcess(command, self.returncode, stderr="no such preset")


@pytest.fixture
def trainer(trials: Any, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer()
    monkeypatch.setattr(trials.subprocess, "run", made.run)
    return made


def test_a_training_is_made_again_when_something_else_is_asked(
    trials: Any, trainer: Trainer, tmp_path: Path
) -> None:
    # given a training
    folder = tmp_path / "run"
    trials.train(folder, 1, ["--preset", "cartpole"])
    assert trainer.calls[0][-4:] == ["--seed", "1", "--preset", "cartpole"]

    # then the same is not made twice, with another seed or other options it is
    assert trials.train(folder, 1, ["--preset", "cartpole"]).records.last("frames") == 1
    assert len(trainer.calls) == 1
    trials.train(folder, 2, ["--preset", "cartpole"])
    trials.train(folder, 2, ["--preset", "corridor"])
    assert len(trainer.calls) == 3
    trials.train(folder, 2, ["--preset", "corridor"])
    assert len(trainer.calls) == 3


def test_a_training_that_did_not_end_is_made_again(
    trials: Any, trainer: Trainer, tmp_path: Path
) -> None:
    trainer.status = "interrupted"
    for _ in range(2):
        trials.train(tmp_path / "run", 1, [])
    assert len(trainer.calls) == 2


def test_a_training_that_failed_is_said(trials: Any, trainer: Trainer, tmp_path: Path) -> None:
    trainer.returncode = 2
    with pytest.raises(RuntimeError, match="failed: no such preset"):
        trials.train(tmp_path / "run", 1, [])
