"""A checkpoint that somebody has made up: a learner and an evaluator refuse it with a sentence."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from impala_redis.common.errors import CheckpointError, ImpalaError, SpecMismatch
from impala_redis.common.learning.engines import make_engine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.playing.saved import from_checkpoint
from impala_redis.common.records import checkpoint
from impala_redis.common.records.checkpoint import Tensors
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.run.saved_spec import read_saved_spec
from support import Programs

pytestmark = pytest.mark.fault(64)

STEM = "checkpoint-000000000098"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run directory with one checkpoint."""
    return Path(shutil.copytree(Path(__file__).parent / "run_of_0_1", tmp_path / "run"))


def with_facts(run: Path, **facts: Any) -> None:
    """Changes what the checkpoint says of itself."""
    path = run / "checkpoints" / f"{STEM}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def with_tensors(run: Path, change: Callable[[Tensors], None]) -> None:
    """Changes the tensors, under a digest that fits."""
    path = run / "checkpoints" / f"{STEM}.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    path.write_bytes(safetensors.numpy.save(tensors))
    with_facts(run, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def resume(run: Path, engine: str = "torch") -> None:
    """Takes the checkpoint as a learner that is resumed does."""
    saved = checkpoint.load(run)
    spec = read_saved_spec(saved.facts, saved.path)
    assert saved.resumes >= 0
    _, settings = RunDirectory(run).read_config()
    config = Config().replace(settings)
    Learner(config, make_engine(engine, "cpu", 1, spec, config)).restore(saved)


def resume_in_numpy(run: Path) -> None:
    resume(run, "numpy")


def with_mean(run: Path) -> None:
    """Adds the mean of the weights, which the run of 0.1 has not."""

    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith("model.")]:
            tensors[name.replace("model.", "averaged.")] = tensors[name] + 1

    with_tensors(run, change)


READERS = (from_checkpoint, resume, resume_in_numpy)
COUNTS = ("version", "updates", "frames", "episodes", "optimizer_steps", "resumes")
NO_COUNTS = ["abc", None, float("inf"), float("nan"), 10**25, 10**5000, -5, True, 1.5, [1], {}]


@pytest.mark.parametrize("read", READERS)
def test_the_checkpoint_is_good_before_it_is_changed(
    run: Path, read: Callable[[Path], Any]
) -> None:
    read(run)


@pytest.mark.parametrize("value", NO_COUNTS, ids=lambda value: ascii(type(value).__name__))
@pytest.mark.parametrize("name", COUNTS)
def test_a_count_that_is_none_is_refused(run: Path, name: str, value: Any) -> None:
    # given
    path = run / "checkpoints" / f"{STEM}.json"
    facts = json.loads(path.read_text()) | {name: "@"}
    text = "9" * 5000 if value == 10**5000 else json.dumps(value)
    path.write_text(json.dumps(facts).replace('"@"', text))

    # when / then
    for read in READERS:
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("read", READERS)
def test_weights_that_are_not_finite_are_refused(
    run: Path, read: Callable[[Path], Any], value: float
) -> None:
    # given one number of the last parameter
    def change(tensors: Tensors) -> None:
        name = max(name for name in tensors if name.startswith("model."))
        tensors[name].reshape(-1)[-1] = value

    with_tensors(run, change)

    # when / then
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        read(run)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8", "bool"])
@pytest.mark.parametrize("read", READERS)
def test_weights_of_another_type_are_refused(
    run: Path, read: Callable[[Path], Any], dtype: str
) -> None:
    def change(tensors: Tensors) -> None:
        name = min(name for name in tensors if name.startswith("model."))
        tensors[name] = tensors[name].astype(dtype)

    with_tensors(run, change)
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        read(run)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("begin", ["model.", "averaged.", "optimizer.", "rng."])
@pytest.mark.parametrize("how", ["shape", "absent", "empty", "nan", "junk"])
def test_tensors_that_do_not_fit_are_not_resumed(
    run: Path, begin: str, how: str, engine: str
) -> None:
    # given
    with_mean(run)

    def change(tensors: Tensors) -> None:
        name = min(name for name in tensors if name.startswith(begin))
        if how == "absent":
            del tensors[name]
        elif how == "nan":
            tensors[name] = np.full(tensors[name].shape, np.nan, np.float32)
        elif how == "junk":
            tensors[name] = np.full_like(tensors[name].view(np.uint8), 255)
        else:
            tensors[name] = np.zeros((0,) if how == "empty" else (3, 5), tensors[name].dtype)

    with_tensors(run, change)

    # when / then
    with pytest.raises(CheckpointError):
        resume(run, engine)


def test_the_mean_of_the_weights_is_played_where_there_is_one(run: Path) -> None:
    # given
    without = from_checkpoint(run)[1].weights

    # when
    with_mean(run)

    # then
    for name, values in from_checkpoint(run)[1].weights.items():
        np.testing.assert_array_equal(values, without[name] + 1)


@pytest.mark.parametrize("how", ["absent", "shape"])
def test_a_mean_that_does_not_fit_is_not_played(run: Path, how: str) -> None:
    # given
    with_mean(run)

    def change(tensors: Tensors) -> None:
        name = min(name for name in tensors if name.startswith("averaged."))
        if how == "absent":
            del tensors[name]
        else:
            tensors[name] = np.zeros((3, 5), np.float32)

    with_tensors(run, change)

    # when / then
    with pytest.raises(CheckpointError, match="has no averaged"):
        from_checkpoint(run)


@pytest.mark.parametrize(
    "returns", [None, "12", [None], ["x"], [[1]], [float("nan")], [1e999], [10**400], {"a": 1}, 7]
)
def test_returns_that_are_none_are_not_resumed(run: Path, returns: Any) -> None:
    with_facts(run, returns=returns)
    with pytest.raises(CheckpointError):
        resume(run)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "spec", [None, 7, [], {}, "", "{}", "[" * 60_000, "9" * 60_000, '{"wire_version": 1e999}']
)
def test_a_spec_that_is_none_is_refused(run: Path, read: Callable[[Path], Any], spec: Any) -> None:
    with_facts(run, spec=spec)
    with pytest.raises(SpecMismatch):
        read(run)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"format": 1, "a":' * 100_000,
        "{" + ",".join(f'"{n}":0' for n in range(600_000)) + "}",
        '{"format": 1, "sha256": "", "tensors": "\\u0000"}',
        '{"format": 1, "sha256": "", "tensors": "\\ud800"}',
        '{"format": 1, "sha256": "", "tensors": ".."}',
        '{"format": 1, "sha256": "", "tensors": ""}',
        '{"format": 1, "sha256": "", "tensors": [1]}',
        '"format"',
    ],
    ids=["deep", "deeper", "wide", "NUL", "half a letter", "above", "nothing", "a list", "a text"],
)
def test_json_of_any_kind_is_refused(run: Path, read: Callable[[Path], Any], text: str) -> None:
    path = run / "checkpoints" / f"{STEM}.json"
    path.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert len(str(caught.value)) < 500


def test_tensors_longer_than_the_network_can_need_are_not_read(run: Path) -> None:
    """A sparse file says that it is long, and costs whoever sends it nothing."""
    # given
    path = run / "checkpoints" / f"{STEM}.safetensors"
    with path.open("r+b") as file:
        file.truncate(20_000_000)

    # when / then
    with pytest.raises(CheckpointError, match=r"longer than 1[67],\d{3},\d{3} bytes"):
        from_checkpoint(path)


def test_a_huge_network_in_the_spec_makes_no_room_for_huge_tensors(run: Path) -> None:
    # given
    path = run / "checkpoints" / f"{STEM}.json"
    spec = json.loads(json.loads(path.read_text())["spec"])
    with_facts(run, spec=json.dumps(spec | {"hidden_sizes": [65_536, 65_536]}))
    with path.with_suffix(".safetensors").open("r+b") as file:
        file.truncate(10_000_000_000)

    # when / then
    with pytest.raises(ImpalaError, match=r"longer than 16,777,216 bytes"):
        from_checkpoint(path)


def test_a_made_up_checkpoint_does_not_hide_an_older_good_one(run: Path) -> None:
    # given
    good = run / "checkpoints" / f"{STEM}.json"
    facts = json.loads(good.read_text()) | {"version": "abc"}
    (run / "checkpoints" / "checkpoint-000000000099.json").write_text(json.dumps(facts))

    # when / then
    assert checkpoint.load(run).path == good


@pytest.mark.processes
@pytest.mark.parametrize(
    "command",
    [
        "impala-eval --checkpoint run",
        "impala-learner --resume --run-dir run",
        "impala-train --resume --run-dir run --num-actors 1",
    ],
)
@pytest.mark.parametrize("facts", [{"version": "abc"}, {"updates": -5}])
def test_every_program_ends_with_code_11_and_one_sentence(
    programs: Programs, run: Path, command: str, facts: dict[str, Any]
) -> None:
    # given
    with_facts(run, **facts)

    # when / then
    code, output = programs.run(*command.split())
    assert code == 11, output
    assert re.search(r"^error: none of the 1 checkpoints .* is usable$", output, re.MULTILINE)
    assert "Traceback" not in output
