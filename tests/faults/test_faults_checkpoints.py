"""Rows 34 to 37 of the fault matrix: disks that fill up, files that rot, kills while saving."""

import contextlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chaos.servers import OwnServer
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.records import checkpoint
from impala_redis.common.records import recorder as metrics
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import ROOT, Program, Programs, eventually

ENDLESS = (
    *("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none"),
    *("--batch-size", "32", "--queue-blocks", "4"),
)
PROGRESS_S = 15.0

# Killed at any instant. The saver is forked by this file run as a program, for each kill anew.

KEEP = 2
LONGEST_LIFE_S = 0.06


def state_of(updates: int) -> tuple[checkpoint.Tensors, dict[str, Any]]:
    """What is saved after so many updates: the same each time, and another for each number."""
    rng = np.random.default_rng(updates)
    tensors: checkpoint.Tensors = {
        "model.weight": rng.normal(size=(100, 1 + updates % 7 * 40)).astype(np.float32),
        "optimizer.square": rng.normal(size=20_000),
        "rng": rng.integers(0, 256, 500, np.uint8),
    }
    return tensors, {"updates": updates, "returns": rng.normal(size=100).tolist()}


def save_for_ever(directory: Path, updates: int, progress: int) -> None:
    """Saves one checkpoint after the other; says the number of each that is done."""
    while True:
        updates += 1
        tensors, facts = state_of(updates)
        checkpoint.save(directory, updates, tensors, facts, KEEP)
        os.write(progress, updates.to_bytes(8, "little"))


def wrong_with(directory: Path, last_done: int) -> str:
    """What is not as it should be after a kill; empty if nothing."""
    found = checkpoint.load(directory)
    updates = found.facts["updates"]
    if updates not in (last_done, last_done + 1):
        return f"{last_done} was saved, and {updates} is there"
    tensors, facts = state_of(updates)
    if {name: found.facts[name] for name in facts} != facts:
        return f"the facts of {updates} are others"
    if set(tensors) != set(found.tensors):
        return f"{updates} holds {set(found.tensors)}"
    for name, array in tensors.items():
        other = found.tensors[name]
        if (other.dtype, other.shape, other.tobytes()) != (
            array.dtype,
            array.shape,
            array.tobytes(),
        ):
            return f"{name} of {updates} is another"
    return ""


class Passed(logging.Handler):
    """Counts the damaged checkpoints that a load passed over."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        Passed.count += 1


def kill_while_saving(directory: Path, seed: int, kills: int) -> dict[str, Any]:
    """Kills a saver at random instants and looks at what is left, each time."""
    draw = random.Random(seed)
    logging.getLogger("impala_redis.common.records.checkpoint").addHandler(Passed())
    began = time.monotonic()
    checkpoint.save(directory, 1, *state_of(1), KEEP)
    longest_s = max(LONGEST_LIFE_S, 4 * (time.monotonic() - began))  # disks differ
    wrong, last, half_written, lost_tensors = [], 1, 0, 0
    for kill in range(kills):
        source, sink = os.pipe()
        if not (child := os.fork()):
            with contextlib.suppress(BaseException):
                save_for_ever(directory, last, sink)
            os._exit(1)
        os.close(sink)
        time.sleep(draw.uniform(0.0, longest_s))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with os.fdopen(source, "rb") as progress:
            done = progress.read()
        last_done = int.from_bytes(done[-8:], "little") if done else last
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            wrong.append(f"kill {kill}: the saver ended by itself")
        if problem := wrong_with(directory, last_done):
            wrong.append(f"kill {kill}: {problem}")
        last = checkpoint.load(directory).facts["updates"]
        half_written += bool(list(directory.glob(".*.tmp")))
        tensors = {path.stem for path in directory.glob("*.safetensors")}
        lost_tensors += bool(tensors - {path.stem for path in directory.glob("*.json")})
        checkpoint.discard_after(directory, last)  # as a resume does
    return {
        "wrong": wrong,
        "saved": last,
        "half_written": half_written,
        "lost_tensors": lost_tensors,
        "passed_over": Passed.count,
        "left": sorted(path.name for path in directory.iterdir()),
    }


def assert_no_kill_is_seen(directory: Path, seed: int, kills: int) -> None:
    done = subprocess.run(
        [sys.executable, __file__, str(directory), str(seed), str(kills)],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    sys.stdout.write(f"seed {seed}: {report}\n")
    assert report["wrong"] == []
    # Whatever is there by the name of a checkpoint is a whole one.
    assert report["passed_over"] == 0
    # And the kills came while something was being written, or they would prove nothing.
    assert report["saved"] > kills // 4
    assert report["half_written"] + report["lost_tensors"] > kills // 10
    assert not [name for name in report["left"] if name.endswith(".tmp")]


@pytest.mark.processes
@pytest.mark.fault(36)
def test_a_kill_while_saving_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path: Path, chaos_seed: int
) -> None:
    assert_no_kill_is_seen(tmp_path, chaos_seed, kills=40)


@pytest.mark.full
@pytest.mark.processes
@pytest.mark.fault(36)
def test_two_hundred_kills_while_saving_leave_the_old_checkpoint_or_the_new_one(
    tmp_path: Path, chaos_seed: int
) -> None:
    assert_no_kill_is_seen(tmp_path, chaos_seed, kills=200)


@pytest.mark.fault(36)
def test_a_resume_removes_tensors_that_a_kill_left_without_their_json(tmp_path: Path) -> None:
    # given a checkpoint, and tensors of a kill between the two writes of the next
    checkpoint.save(tmp_path, 1, *state_of(1), KEEP)
    (tmp_path / "checkpoint-000000000002.safetensors").write_bytes(b"x" * 100)

    # when it is resumed
    checkpoint.discard_after(tmp_path, 1)

    # then nothing is left but the checkpoint
    assert {path.stem for path in tmp_path.iterdir()} == {"checkpoint-000000000001"}


# A run to resume, trained once.


class Trained:
    """A run directory with three checkpoints, copied for each test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def copy_to(self, folder: Path) -> Path:
        copy = folder / "run"
        shutil.copytree(self._directory, copy)
        return copy


@pytest.fixture(scope="module")
def trained(
    redis_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    """Trained by the programs themselves, with a momentum beside the squares."""
    programs = Programs(tmp_path_factory.mktemp("trained"))
    variables: dict[str, Any] = {"IMPALA_REDIS_URL": redis_server.url, "IMPALA_RUN": "to-resume"}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("IMPALA_")]:
            patch.delenv(name)
        often = ("--checkpoint-interval-s", "0.05", "--run-dir", "run")
        momentum = ("--optimizer", "rmsprop", "--rmsprop-momentum", "0.9")
        learner = programs.start("impala-learner", *ENDLESS, *often, *momentum, **variables)
        programs.start("impala-actor", **variables)
    try:
        learner.says("first batch is here")
        checkpoints = programs.folder / "run" / "checkpoints"
        eventually(lambda: _newest(checkpoints) > 50, what="some checkpoints")
        learner.send(signal.SIGTERM)
        assert learner.code() == 130, learner.output
        yield Trained(programs.folder / "run")
    finally:
        programs.end()


def _newest(checkpoints: Path) -> int:
    """The updates of the newest checkpoint, 0 for none."""
    numbers = [int(path.stem.partition("-")[2]) for path in checkpoints.glob("checkpoint-*.json")]
    return max(numbers, default=0)


def checkpoints_of(run: Path) -> list[Path]:
    """The JSON files, newest first."""
    return sorted((run / "checkpoints").glob("checkpoint-*.json"), reverse=True)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def resume(programs: Programs, url: str, name: str, *options: str) -> Program:
    """A learner that goes on in `run`."""
    variables: dict[str, Any] = {"IMPALA_REDIS_URL": url, "IMPALA_RUN": name}
    return programs.start("impala-learner", "--resume", "--run-dir", "run", *options, **variables)


def stopped(learner: Program) -> None:
    """Stops it in order, and looks at its words."""
    learner.send(signal.SIGTERM)
    assert learner.code() == 130, learner.output
    assert "Traceback" not in learner.output


@pytest.mark.processes
@pytest.mark.fault(36)
def test_a_resumed_run_goes_on_from_exactly_what_was_saved(
    programs: Programs, trained: Trained, redis_url: str, run_name: str
) -> None:
    # given a run that was stopped
    run = trained.copy_to(programs.folder)
    before = checkpoint.load(run)

    # when a learner resumes it, and has had no batch yet
    learner = resume(programs, redis_url, run_name)
    learner.says("ready")
    after = checkpoint.load(run)

    # then what it begins with is, bit for bit, what was saved: network, optimizer, randomness
    assert set(after.tensors) == set(before.tensors)
    for name, array in before.tensors.items():
        other = after.tensors[name]
        assert (other.dtype, other.shape) == (array.dtype, array.shape), name
        assert other.tobytes() == array.tobytes(), name
    assert {name.split(".")[0] for name in after.tensors} == {
        "model",
        "averaged",
        "optimizer",
        "rng",
    }
    assert any(np.any(a != 0) for n, a in after.tensors.items() if "momentum" in n)
    same = ("updates", "frames", "episodes", "returns", "optimizer_steps")
    assert {k: after.facts[k] for k in same} == {k: before.facts[k] for k in same}
    # and the weights get a newer number, so that no actor mistakes them for others
    assert after.facts["version"] > before.facts["version"]
    stopped(learner)


# Files that rot.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


Spoil = Callable[[Path], None]


def spoil(file: Path, how: Spoil, suffix: str) -> None:
    """Damages the JSON or the tensors of a checkpoint."""
    how(file.with_suffix(suffix))


ROTTEN: dict[str, list[tuple[Spoil, str]]] = {
    "truncated": [(truncate, ".safetensors")],
    "a bit flipped, then zero length": [(flip, ".safetensors"), (empty, ".json")],
    "a JSON cut, then tensors gone": [(truncate, ".json"), (remove, ".safetensors")],
}


@pytest.mark.processes
@pytest.mark.fault(35)
@pytest.mark.parametrize(
    "case",
    [
        name if not number else pytest.param(name, marks=pytest.mark.full)
        for number, name in enumerate(ROTTEN)
    ],
)
def test_a_damaged_checkpoint_is_passed_over_loudly_for_the_one_before(
    programs: Programs, trained: Trained, redis_url: str, run_name: str, case: str
) -> None:
    # given a run whose newest checkpoints are damaged
    run = trained.copy_to(programs.folder)
    files, damages = checkpoints_of(run), ROTTEN[case]
    assert len(files) == 3
    for file, (how, suffix) in zip(files, damages, strict=False):
        spoil(file, how, suffix)
    good = files[len(damages)]

    # when it is resumed
    learner = resume(programs, redis_url, run_name)
    output = learner.says("ready")

    # then each of them is named, and it goes on from the newest that is whole
    assert output.count("PASSED OVER a damaged checkpoint") == len(damages)
    assert f"resumed from {good.name}" in output
    for file in files[: len(damages)]:
        assert file.stem in output

    # and what it saves from now on is whole
    stopped(learner)
    assert checkpoint.load(run).facts["updates"] == int(good.stem.partition("-")[2])


@pytest.mark.processes
@pytest.mark.fault(35)
def test_a_run_without_one_good_checkpoint_is_refused_and_left_as_it_is(
    programs: Programs, trained: Trained, redis_url: str, run_name: str
) -> None:
    # given a run whose checkpoints are damaged, all of them
    run = trained.copy_to(programs.folder)
    damages = [(truncate, ".safetensors"), (flip, ".safetensors"), (empty, ".json")]
    for file, (how, suffix) in zip(checkpoints_of(run), damages, strict=True):
        spoil(file, how, suffix)
    before = contents(run / "checkpoints")

    # when it is resumed, again and again
    for _ in range(2):
        learner = resume(programs, redis_url, run_name)

        # then it is refused: nothing is begun, in Redis or on disk
        assert learner.code() == 11, learner.output
        assert "none of the 3 checkpoints" in learner.output
        assert "Traceback" not in learner.output
        assert contents(run / "checkpoints") == before
    link = MonitorLink(redis_url, run_name, "test")
    assert link.read_learner()["epoch"] == 0
    link.close()


@pytest.mark.processes
@pytest.mark.fault(35)
def test_a_checkpoint_of_another_network_is_refused_and_left_as_it_is(
    programs: Programs, trained: Trained, redis_url: str, run_name: str
) -> None:
    # given a run that is resumed with another network
    run = trained.copy_to(programs.folder)
    before = contents(run / "checkpoints")
    learner = resume(programs, redis_url, run_name, "--hidden-sizes", "32,32")

    # then it is refused, with what differs: the one before would be of another network, too
    assert learner.code() == 9, learner.output
    assert "hidden_sizes is (32, 32) here and (64, 64) there" in learner.output
    assert contents(run / "checkpoints") == before
    assert "Traceback" not in learner.output


@pytest.mark.processes
@pytest.mark.fault(35)
def test_tensors_that_do_not_fit_what_their_checkpoint_says_are_refused(
    programs: Programs, trained: Trained, redis_url: str, run_name: str
) -> None:
    # given a newest checkpoint that is whole, says the right spec and holds another network
    run = trained.copy_to(programs.folder)
    saved = checkpoint.load(run)
    tensors = dict(saved.tensors) | {"model.policy.weight": np.zeros((2, 8), np.float32)}
    facts = {k: v for k, v in saved.facts.items() if k not in ("format", "tensors", "sha256")}
    checkpoint.save(run / "checkpoints", saved.facts["updates"] + 1, tensors, facts, keep=9)
    before = contents(run / "checkpoints")

    # when it is resumed
    learner = resume(programs, redis_url, run_name)

    # then it is refused by the name of what does not fit, and nothing was begun
    assert learner.code() == 11, learner.output
    assert "model.policy.weight" in learner.output
    assert contents(run / "checkpoints") == before
    assert "Traceback" not in learner.output


# A disk without room.


class SmallDisk:
    """A file system of its own, of a few megabytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Takes all the room there is."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def make_room(self) -> None:
        self._filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


class Training:
    """A learner and an actor at work in a directory, with a checkpoint every fifth of a second."""

    def __init__(self, programs: Programs, url: str, name: str, directory: Path) -> None:
        variables: dict[str, Any] = {"IMPALA_REDIS_URL": url, "IMPALA_RUN": name}
        options = ("--run-dir", str(directory), "--checkpoint-interval-s", "0.2")
        self.learner = programs.start("impala-learner", *ENDLESS, *options, **variables)
        self.actor = programs.start("impala-actor", **variables)
        self.checkpoints = directory / "checkpoints"
        self._monitor = MonitorLink(url, name, "test")
        self.learner.says("first batch is here")
        eventually(lambda: self.newest() > 0, what="a checkpoint")

    def books(self) -> dict[str, Any]:
        return self._monitor.read_books()

    def newest(self) -> int:
        return _newest(self.checkpoints)

    def trains_on(self) -> None:
        consumed = self.books()["consumed"]
        eventually(lambda: self.books()["consumed"] > consumed + 50, PROGRESS_S, "training")

    def failures(self) -> int:
        return self.learner.output.count("NO CHECKPOINT was written")

    def ends_well(self) -> None:
        stopped(self.learner)
        assert residual(self.books()) == 0
        assert "Traceback" not in self.actor.output
        self._monitor.close()


def assert_survives(
    training: Training, take_room: Callable[[], None], make_room: Callable[[], None]
) -> None:
    """A disk without room costs checkpoints and nothing else, as long as it lasts."""
    # when there is no room
    take_room()
    # a save may be under way that makes room once more by removing the oldest
    eventually(lambda: take_room() or training.failures() >= 2, PROGRESS_S, "two loud lines")

    # then the old ones are whole, nothing half-written is left, and training goes on
    newest = training.newest()
    assert checkpoint.load(training.checkpoints).facts["updates"] == newest
    training.trains_on()
    failures = training.failures()
    eventually(lambda: training.failures() > failures, PROGRESS_S, "one more loud line")
    assert training.newest() == newest
    eventually(lambda: not list(training.checkpoints.glob("*.tmp")), what="no half-written file")
    assert training.learner.process.poll() is None

    # and when there is room again, they are written again
    make_room()
    eventually(lambda: training.newest() > newest, PROGRESS_S, "a new checkpoint")
    training.ends_well()
    last = checkpoint.load(training.checkpoints)
    assert last.facts["updates"] == training.newest() > newest
    stems = {path.stem for path in training.checkpoints.glob("*.safetensors")}
    assert stems == {path.stem for path in training.checkpoints.glob("*.json")}


@pytest.mark.processes
@pytest.mark.fault(34)
def test_a_full_disk_costs_checkpoints_and_no_training(
    programs: Programs, small_disk: SmallDisk, redis_url: str, run_name: str
) -> None:
    training = Training(programs, redis_url, run_name, small_disk.path / "run")
    assert_survives(training, small_disk.fill, small_disk.make_room)
    assert "No space left on device" in training.learner.output


@pytest.mark.processes
@pytest.mark.fault(34)
def test_files_that_may_not_grow_cost_checkpoints_and_no_training(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given a learner at work whose files may be limited: what anyone may do to a process of theirs
    training = Training(programs, redis_url, run_name, programs.folder / "run")
    pid, (soft, hard) = training.learner.pid, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    # then the limit is survived as a full disk is
    assert_survives(training, lambda: limit(30_000), lambda: limit(soft))
    assert "File too large" in training.learner.output


@pytest.mark.full
@pytest.mark.processes
@pytest.mark.fault(34)
def test_a_disk_that_stays_full_ends_the_tensorboard_events_with_one_line(
    programs: Programs, small_disk: SmallDisk, redis_url: str, run_name: str
) -> None:
    # given a learner at work on a disk that is full, and stays so
    training = Training(programs, redis_url, run_name, small_disk.path / "run")
    small_disk.fill()

    # when it has given up on the events
    training.learner.says("no more TensorBoard events")

    # then it goes on, that was all it said of them, and no record is cut in two
    training.trains_on()
    small_disk.make_room()
    stopped(training.learner)
    for line in (small_disk.path / "run" / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["frames"] >= 0
    assert residual(training.books()) == 0


@pytest.mark.fault(34)
def test_records_do_not_pile_up_when_tensorboard_takes_none(
    small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a recorder on a full disk, which has given up on the events
    monkeypatch.setattr(metrics, "TENSORBOARD_AFTER_S", 0.0)
    with contextlib.closing(metrics.Recorder(small_disk.path)) as recorder:
        small_disk.fill()
        figures = {"frames": 1, "unix_s": 1.0, "total_loss": 0.5}

        def has_given_up() -> bool:
            recorder.record(figures)
            return recorder._events_failed

        eventually(has_given_up)

        # when many more records come
        caplog.set_level(logging.CRITICAL)
        for _ in range(1000):
            recorder.record(figures)

        # then they are not kept
        kept = len(recorder._waiting)
        small_disk.make_room()
    assert kept < 100


@pytest.mark.processes
@pytest.mark.fault(34)
def test_a_run_on_a_full_disk_is_refused_with_the_reason(
    programs: Programs, small_disk: SmallDisk, redis_url: str, run_name: str
) -> None:
    # given a disk that is full from the start
    small_disk.fill()

    # when a run is begun there
    variables: dict[str, Any] = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    learner = programs.start(
        "impala-learner", *ENDLESS, "--run-dir", str(small_disk.path / "run"), **variables
    )

    # then it is refused, and the run's lease is free for the next one
    assert learner.code() == 10, learner.output
    assert "No space left on device" in learner.output
    assert "Traceback" not in learner.output
    link = MonitorLink(redis_url, run_name, "test")
    assert link.read_learner()["holder"] is None
    link.close()


# More than the server takes.


@pytest.mark.processes
@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--hidden-sizes", "512,512"), "weights"),
        (("--envs-per-actor", "4096", "--batch-size", "4096"), "block"),
    ],
    ids=["weights", "block"],
)
def test_what_the_server_would_not_take_is_refused_at_the_start(
    programs: Programs, tmp_path: Path, options: tuple[str, ...], named: str
) -> None:
    # given a server that takes no value above 1 MB
    with OwnServer(tmp_path, "--proto-max-bulk-len", "1mb") as server:
        # when a learner is started for a run that would need more
        variables: dict[str, Any] = {"IMPALA_REDIS_URL": server.url, "IMPALA_RUN": "large"}
        learner = programs.start(
            "impala-learner", *ENDLESS, *options, "--run-dir", "run", **variables
        )

        # then it says so, with the setting and both sizes, instead of being cut off for ever
        assert learner.code() == 6, learner.output
        assert "proto-max-bulk-len" in learner.output
        assert named in learner.output
        assert "and the server takes 1" in learner.output
        assert "Traceback" not in learner.output


if __name__ == "__main__":
    found = kill_while_saving(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(found) + "\n")


@pytest.mark.processes
@pytest.mark.fault(34)
def test_results_that_find_no_room_are_told_by_impala_train_with_a_code(
    programs: Programs, small_disk: SmallDisk
) -> None:
    # given a training, its logs included, on a disk that fills up meanwhile
    run = small_disk.path / "run"
    train = programs.start(
        *("impala-train", "--preset", "cartpole", "--stop-at-return", "none", "--seed", "1"),
        *("--total-frames", "300000", "--run-dir", str(run), "--checkpoint-interval-s", "0.2"),
    )
    train.says("frames  ")
    small_disk.fill()

    # when it has come to its end
    code = train.code()

    # then the terminal says what was reached, what was lost on the way, and that it is not kept
    assert code == 10, train.output
    assert "learner: NO CHECKPOINT was written" in train.output
    assert "learner: RECORDS ARE LOST, metrics.jsonl cannot be written" in train.output
    assert "finished: mean return" in train.output
    assert (
        "error: the run is finished, but the last checkpoint and result.json could not be written "
        f"to {run} (No space left on device); make room, then go on with --resume --run-dir {run}"
    ) in train.output
    assert "before the training began" not in train.output
    assert "Traceback" not in train.output

    # and once there is room it goes on from a checkpoint that is whole
    small_disk.make_room()
    assert not (run / "result.json").exists()
    assert checkpoint.load(run / "checkpoints").facts["frames"] < 300_000


@pytest.mark.processes
@pytest.mark.fault(34)
def test_a_disk_that_was_full_for_a_while_costs_what_was_told_and_no_result(
    programs: Programs, small_disk: SmallDisk
) -> None:
    # given a training on a disk that is full
    run = small_disk.path / "run"
    train = programs.start(
        *("impala-train", "--preset", "cartpole", "--stop-at-return", "none"),
        *("--total-frames", "500_000_000", "--run-dir", str(run), "--checkpoint-interval-s", "0.2"),
    )
    train.says("frames  ")
    small_disk.fill()
    train.says("learner: RECORDS ARE LOST")

    # when there is room again, and it is stopped
    small_disk.make_room()
    train.says("learner: records are written again")
    train.send(signal.SIGINT)

    # then it ends as ever
    assert train.code() == 130, train.output
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert result["records_lost"] >= 1
    assert checkpoint.load(run / "checkpoints").facts["frames"] == result["frames"]
    for line in (run / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["frames"] >= 0


@pytest.mark.processes
@pytest.mark.fault(34)
def test_files_that_may_not_grow_from_the_start_cost_the_checkpoint_and_a_code(
    programs: Programs,
) -> None:
    # when no file of a training may have more than 8 KiB, its checkpoint neither
    train = programs.shell(
        "bash -c 'ulimit -f 8; exec impala-train --preset cartpole --total-frames 20000 "
        "--stop-at-return none --run-dir run'"
    )

    # then
    assert train.code() == 10, train.output
    assert "finished: mean return" in train.output
    run_dir = programs.folder / "run"
    assert (
        f"error: the run is finished, but the last checkpoint could not be written to {run_dir} "
        f"(File too large); make room, then go on with --resume --run-dir {run_dir}"
    ) in train.output
    result = json.loads((programs.folder / "run" / "result.json").read_text())
    assert result["status"] == "finished"
