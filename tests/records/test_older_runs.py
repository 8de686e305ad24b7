"""Run directories that earlier versions wrote are read, played, reported and resumed.

`run_of_0_1` is of release 0.1, whose wire version was 3. `run_of_wire_2` is of the version before
it, in which an action was always one choice.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from impala_redis.common.errors import SpecMismatch
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.playing.saved import from_checkpoint
from impala_redis.common.records import checkpoint
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.run.saved_spec import MADE_BY, read_saved_spec
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import WIRE_VERSION, make_spec
from support import Programs

HERE = Path(__file__).parent
# Flags in bytes: their bounds say 1 today, and release 0.1 divided them by 255.
FLAGS = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Flags(gymnasium.Env):
    observation_space = spaces.Box(0, 1, (6,), np.uint8)
    action_space = spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.wanted = int(self.np_random.integers(6))
        return np.eye(6, dtype=np.uint8)[self.wanted], {}

    def step(self, action):
        return np.zeros(6, np.uint8), float(action == self.wanted), True, False, {}


gymnasium.register("Flags-v0", entry_point=Flags)
"""


@pytest.fixture(params=["run_of_0_1", "run_of_wire_2"])
def run_dir(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(HERE / request.param, tmp_path / "run"))


def test_its_spec_is_the_one_that_the_same_settings_give_today(run_dir: Path) -> None:
    # given
    _, settings = RunDirectory(run_dir).read_config()
    config = Config().replace(settings)
    today = make_spec("cartpole", config, ObservationSpec((4,), "float32"), discrete(2))

    # when
    saved = checkpoint.load(run_dir)
    found = read_saved_spec(saved.facts, saved.path)

    # then
    assert found == today
    assert found.fingerprint == today.fingerprint
    assert found.wire_version == WIRE_VERSION


def test_its_weights_are_played_as_they_are(run_dir: Path) -> None:
    saved = checkpoint.load(run_dir)
    spec, (version, weights, _) = from_checkpoint(run_dir)
    assert version == saved.facts["version"]
    assert list(weights) == list(spec.parameter_shapes())
    for name, values in weights.items():
        assert np.array_equal(values, saved.tensors[f"model.{name}"])


def test_training_goes_on_from_exactly_what_was_saved(run_dir: Path) -> None:
    # given
    saved = checkpoint.load(run_dir)
    _, settings = RunDirectory(run_dir).read_config()
    spec = read_saved_spec(saved.facts, saved.path)

    # when
    learner = Learner(
        Config().replace(settings),
        TorchEngine(spec, Config().replace(settings)),
    )
    learner.restore(saved)
    tensors, facts = learner.state()

    # then
    # those of older runs have no mean of the weights yet: it begins at them
    known = {name.replace("averaged.", "model."): values for name, values in tensors.items()}
    assert set(known) == set(saved.tensors)
    for name, values in tensors.items():
        of_saved = saved.tensors[name.replace("averaged.", "model.")]
        assert values.tobytes() == of_saved.tobytes(), name
    assert facts == {name: saved.facts[name] for name in facts}


@pytest.mark.processes
def test_it_is_resumed_and_its_records_go_on(programs: Programs, run_dir: Path) -> None:
    # given
    before = (run_dir / "metrics.jsonl").read_text().splitlines()
    frames = json.loads((run_dir / "result.json").read_text())["frames"]

    # when
    code, output = programs.run(
        *("impala-train", "--resume", "--run-dir", str(run_dir)),
        *("--total-frames", str(frames + 10_000)),
    )

    # then
    assert code == 0, output
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["status"], result["seed"], result["preset"]) == ("finished", 3, "cartpole")
    assert result["frames"] >= frames + 10_000
    after = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    counts = [json.loads(line)["frames"] for line in after]
    assert counts == sorted(counts)
    assert len(after) > len(before)

    # and its files say which version wrote them last
    assert checkpoint.load(run_dir).facts["made_by"] == MADE_BY
    assert RunDirectory(run_dir).read_config()[0]["made_by"] == MADE_BY


@pytest.mark.processes
def test_it_is_played_and_reported(programs: Programs, run_dir: Path) -> None:
    # when
    code, output = programs.run(
        "impala-eval", "--checkpoint", str(run_dir), "--episodes", "5", "--json"
    )

    # then
    assert code == 0, output
    evaluation = json.loads(output)
    version = checkpoint.load(run_dir).facts["version"]
    assert (evaluation["weights_version"], evaluation["episodes"]) == (version, 5)

    # and
    code, output = programs.run("impala-report", str(run_dir))
    assert code == 0, output
    frames = json.loads((run_dir / "result.json").read_text())["frames"]
    assert f"{frames:,}" in (run_dir / "report.html").read_text()


@pytest.mark.processes
def test_a_run_of_a_version_to_come_is_refused_by_file_and_version(
    programs: Programs, run_dir: Path
) -> None:
    # given
    (file,) = (run_dir / "checkpoints").glob("*.json")
    facts = json.loads(file.read_text())
    spec = json.loads(facts["spec"]) | {"wire_version": WIRE_VERSION + 1, "unheard_of": 1}
    file.write_text(json.dumps(facts | {"made_by": "impala-redis 9.8", "spec": json.dumps(spec)}))

    # when
    code, output = programs.run("impala-eval", "--checkpoint", str(run_dir))

    # then
    said = f"{file} was made by impala-redis 9.8 (wire version {WIRE_VERSION + 1}, this one reads"
    assert code == SpecMismatch.exit_code
    assert said in output
    assert "install that version" in output
    assert "Traceback" not in output


@pytest.mark.processes
def test_a_run_that_divided_bytes_by_255_does_so_for_ever(
    programs: Programs, tmp_path: Path
) -> None:
    # given a short run whose checkpoint has the form of release 0.1
    (programs.folder / "flags.py").write_text(FLAGS)
    train = ("impala-train", "--run-dir", str(tmp_path / "run"), "--preset", "cartpole")
    train += ("--env", "flags:Flags-v0", "--stop-at-return", "none", "--envs-per-actor", "8")
    code, output = programs.run(*train, "--total-frames", "2000")
    assert code == 0, output
    first, _ = from_checkpoint(tmp_path / "run")
    assert first.observation.scale == ()
    for file in (tmp_path / "run" / "checkpoints").glob("*.json"):
        facts = json.loads(file.read_text())
        spec = json.loads(facts["spec"]) | {"wire_version": 3}
        del spec["observation"]["scale"], facts["made_by"]
        file.write_text(json.dumps(facts | {"spec": json.dumps(spec)}))

    # when it is played, and resumed with actors of today
    played, _ = from_checkpoint(tmp_path / "run")
    code, output = programs.run(*train, "--resume", "--total-frames", "9000")

    # then
    assert played.observation.scale == (255,)
    assert code == 0, output
    assert json.loads((tmp_path / "run" / "result.json").read_text())["frames"] >= 9000
    resumed, _ = from_checkpoint(tmp_path / "run")
    assert resumed.observation.scale == (255,)
    code, output = programs.run(
        *("impala-eval", "--checkpoint", str(tmp_path / "run"), "--env-module", "flags", "--json")
    )
    assert code == 0, output
