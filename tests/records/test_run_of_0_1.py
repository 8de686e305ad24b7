"""A run directory that release 0.1 wrote (`run_of_0_1`) is read, played, reported and resumed."""

import json
import shutil
from pathlib import Path

import pytest

from impala_redis.common.records import checkpoint
from impala_redis.common.run.spec import saved_spec
from support import Programs

OLD = Path(__file__).parent / "run_of_0_1"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_its_spec_is_read_although_messages_have_another_version() -> None:
    text = str(checkpoint.load(OLD).facts["spec"])
    spec = saved_spec(text)
    assert (spec.env, spec.hidden_sizes, spec.seed) == ("CartPole-v1", (8,), 3)
    assert json.loads(spec.to_json()) == json.loads(text) | {"wire_version": 4}


@pytest.mark.processes
def test_it_is_resumed_and_its_records_go_on(programs: Programs, run_dir: Path) -> None:
    # given
    before = (run_dir / "metrics.jsonl").read_text().splitlines()

    # when
    code, output = programs.run(
        *("impala-train", "--resume", "--run-dir", str(run_dir), "--total-frames", "40000")
    )

    # then
    assert code == 0, output
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["status"], result["seed"], result["preset"]) == ("finished", 3, "cartpole")
    assert result["frames"] >= 40_000
    after = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    frames = [json.loads(line)["frames"] for line in after]
    assert frames == sorted(frames)
    assert len(after) > len(before)


@pytest.mark.processes
def test_it_is_played_and_reported(programs: Programs, run_dir: Path) -> None:
    # when
    code, output = programs.run(
        "impala-eval", "--checkpoint", str(run_dir), "--episodes", "5", "--json"
    )

    # then
    assert code == 0, output
    evaluation = json.loads(output)
    assert (evaluation["weights_version"], evaluation["episodes"]) == (99, 5)

    # and
    code, output = programs.run("impala-report", str(run_dir))
    assert code == 0, output
    assert "30,226" in (run_dir / "report.html").read_text()
