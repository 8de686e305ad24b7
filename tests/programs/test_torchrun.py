"""Several learners, which torchrun starts, are one child of impala-train and end as one."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from impala_redis.common.errors import EXIT_INTERRUPTED, ConfigError, NotFinite
from impala_redis.common.local import children
from impala_redis.workers import seating, torchrun, voice
from impala_redis.workers.torchrun import Learners
from support import Programs, eventually, is_running

pytestmark = pytest.mark.processes

# A learner as torchrun sees one. It tells by a file that it runs, and by another that it has saved.
LEARNER = """
import os, signal, sys, time
from pathlib import Path
from impala_redis.common.local import children
from impala_redis.workers import credentials, voice

assert credentials.handed_over() == "redis://:hush@localhost/0"
assert all("hush" not in value for value in os.environ.values())
tie = children.tie_to_parent(signal.SIGTERM, os.getppid())
if tie:
    tie()
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
folder = Path(sys.argv[1])
(folder / f"pid-{rank}.new").write_text(str(os.getpid()))
(folder / f"pid-{rank}.new").rename(folder / f"pid-{rank}-{attempt}")
voice.tell(log=f"rank {rank} begins")
with voice.telling_code():
    while not asked:
        if (folder / f"kill-{rank}-{attempt}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (folder / f"fail-{rank}-{attempt}").exists():
            voice.tell(error="gradients are not finite")
            sys.exit(15)
        time.sleep(0.01)
    (folder / f"saved-{rank}").touch()
    sys.exit(130)
"""

# impala-train, as far as its learners are concerned.
TRAIN = """
import os, sys, time
from impala_redis.workers import voice
from impala_redis.workers.torchrun import Learners

learners = Learners(
    sys.argv[1:], 2, redis_url="redis://:hush@localhost/0", listener=voice.Listener(),
    log_file=None, environment=dict(os.environ), grace_s=10.0,
)
while learners.poll() is None:
    time.sleep(0.01)
"""

Start = Callable[[], Learners]


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="i") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def folder(tmp_path: Path, temporary: Path) -> Path:
    """Where the learners leave what they have done."""
    (tmp_path / "learner.py").write_text(LEARNER)
    return tmp_path


@pytest.fixture
def learners(folder: Path) -> Iterator[Learners]:
    with contextlib.closing(voice.Listener()) as listener:
        started = Learners(
            program(folder),
            2,
            redis_url="redis://:hush@localhost/0",
            listener=listener,
            log_file=folder / "learner.log",
            environment=os.environ | {"PET_NNODES": "2", "PET_REDIRECTS": "3"},
            grace_s=10.0,
        )
        yield started
        if started.poll() is None:
            started.kill()
            started.wait(10)


def program(folder: Path) -> list[str]:
    return [sys.executable, "-P", str(folder / "learner.py"), str(folder)]


def ranks_of(folder: Path, poll: Callable[[], int | None], attempt: int = 0) -> list[int]:
    """The process numbers of both learners, once they run."""
    files = [folder / f"pid-{rank}-{attempt}" for rank in (0, 1)]

    def are_running() -> bool:
        code = poll()
        assert code is None, f"{code}: {(folder / 'learner.log').read_text()}"
        return all(map(Path.exists, files))

    eventually(are_running, 120.0, "both learners")
    return [int(file.read_text()) for file in files]


def test_after_a_loss_all_begin_anew_and_an_error_of_ours_ends_them_with_its_code(
    folder: Path, temporary: Path, learners: Learners, caplog: pytest.LogCaptureFixture
) -> None:
    # given learners of which one was lost, so that torchrun has begun both anew
    first = ranks_of(folder, learners.poll)
    (folder / "kill-1-0").touch()
    ranks = ranks_of(folder, learners.poll, attempt=1)
    assert "the learners begin anew (attempt 2): one of them was lost" in caplog.text

    # when rank 0 ends with an error that another attempt would meet again
    (folder / "fail-0-1").touch()
    code = learners.wait(60)

    # then none is made, and what rank 0 has said of it is heard; nobody else has a voice
    assert (code, learners.attempts) == (NotFinite.exit_code, 2)
    listener = learners._listener
    assert (listener.hear(), listener.error) == (["rank 0 begins"] * 2, "gradients are not finite")
    assert not any(map(is_running, first + ranks))
    assert list(temporary.iterdir()) == []
    assert "OMP_NUM_THREADS" not in (folder / "learner.log").read_text()


@pytest.fixture
def one_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun, "MAX_RESTARTS", 1)


@pytest.mark.usefixtures("one_restart")
def test_learners_of_which_one_is_lost_too_often_were_not_interrupted(
    folder: Path, learners: Learners
) -> None:
    # given learners of which one was lost twice
    for attempt in (0, 1):
        ranks_of(folder, learners.poll, attempt)
        (folder / f"kill-1-{attempt}").touch()

    # when torchrun gives up, and asks rank 0 to end
    code = learners.wait(60)

    # then that is not for the reason that somebody has asked for the end
    assert (learners._listener.code, learners.attempts) == (EXIT_INTERRUPTED, 2)
    assert code == -signal.SIGKILL


def test_a_learner_ends_no_other_process_than_the_torchrun_that_has_started_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: killed.append(call))
    monkeypatch.setattr(os, "getppid", lambda: 7)

    # when the one that was its parent at the start has ended, or has not
    seating._end_torchrun(8)
    assert killed == []
    seating._end_torchrun(7)

    # then
    assert killed == [(7, signal.SIGTERM)]


def test_learners_that_are_asked_to_end_save_and_tell_their_code(
    folder: Path, temporary: Path, learners: Learners
) -> None:
    ranks = ranks_of(folder, learners.poll)

    # when / then
    assert children.end(learners, 30.0) == EXIT_INTERRUPTED
    assert (folder / "saved-0").exists()
    assert (folder / "saved-1").exists()
    assert not any(map(is_running, [learners.pid, *ranks]))
    assert list(temporary.iterdir()) == []


def test_a_second_ctrl_c_ends_torchrun_and_its_learners_at_once(
    folder: Path, learners: Learners
) -> None:
    # given learners that would not end by themselves
    ranks = ranks_of(folder, learners.poll)
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)

    # when / then
    learners.kill()
    learners.wait(10)
    assert not any(map(is_running, [learners.pid, *ranks]))


@pytest.mark.skipif(sys.platform != "linux", reason="asks for the parent's death signal")
def test_no_learner_outlives_an_impala_train_that_is_killed(folder: Path) -> None:
    # given
    (folder / "train.py").write_text(TRAIN)
    train = subprocess.Popen([sys.executable, "-P", str(folder / "train.py"), *program(folder)])
    ranks = ranks_of(folder, train.poll)

    # when
    train.kill()
    train.wait(10)

    # then
    eventually(lambda: not any(map(is_running, ranks)), what="the end of both learners")
    assert (folder / "saved-0").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--learners", "0"), "Invalid value for '--learners'"),
        (("--learners", "2", "--engine", "numpy"), "--engine numpy is for one learner"),
        (("--learners", "3"), "--batch-size 128 cannot be divided among 3 learners"),
    ],
)
def test_learners_that_cannot_share_a_run_are_refused_before_anything_is_made(
    programs: Programs, options: tuple[str, ...], words: str
) -> None:
    code, output = programs.run("impala-train", "--preset", "cartpole", *options)
    assert code == 2, output
    assert words in output
    assert "Traceback" not in output
    assert not (programs.folder / "runs").exists()


def test_a_cluster_that_calls_each_job_a_group_of_one_is_no_torchrun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = []
    for size in ("", "1", "2"):
        monkeypatch.setenv("WORLD_SIZE", size)
        try:
            torchrun.check_learners(2, "torch", 128)
        except ConfigError as error:
            refused.append((size, "or unset WORLD_SIZE" in str(error)))
    assert refused == [("2", True)]


def test_impala_train_is_not_for_torchrun_which_it_starts_itself(programs: Programs) -> None:
    code, output = programs.run("impala-train", WORLD_SIZE="2", RANK="0")
    assert code == 2, output
    assert "use impala-train --learners K" in output
