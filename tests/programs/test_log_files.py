"""The logs of the programs that impala-train starts: in the run directory, and nowhere else."""

import os
import signal
from pathlib import Path

import pytest

from impala_redis.common.local import children
from impala_redis.workers import log_files
from support import Programs

MINE = "what is mine\n"
SHORT = (
    *("impala-train", "--preset", "cartpole", "--run-dir", "run", "--num-actors", "1"),
    *("--total-frames", "1000", "--stop-at-return", "none", "--no-report"),
)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user's, outside of the run directory."""
    path = tmp_path / "authorized_keys"
    path.write_text(MINE)
    return path


@pytest.mark.fault(64)
@pytest.mark.processes
def test_no_log_is_written_through_a_link_and_the_run_goes_on(
    programs: Programs, mine: Path
) -> None:
    # given a directory that somebody has prepared
    (programs.folder / "run" / "logs").mkdir(parents=True)
    for name in ("learner.log", "actor-0.log"):
        (programs.folder / "run" / "logs" / name).symlink_to(mine)

    # when / then
    code, output = programs.run(*SHORT)
    assert code == 0, output
    assert "actor-0 has no log: " in output
    assert "learner.log is a symbolic link" in output
    assert mine.read_text() == MINE


@pytest.mark.fault(64)
@pytest.mark.processes
@pytest.mark.parametrize("folder", ["logs", "checkpoints"])
def test_a_folder_of_the_run_that_is_a_link_ends_the_program_with_code_10(
    programs: Programs, tmp_path: Path, folder: str
) -> None:
    # given
    (tmp_path / "elsewhere").mkdir()
    (programs.folder / "run").mkdir()
    (programs.folder / "run" / folder).symlink_to(tmp_path / "elsewhere")

    # when / then
    code, output = programs.run(*SHORT)
    assert code == 10, output
    assert f"error: the run directory run cannot be written ({folder} is a symbolic link" in output
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_child_whose_log_is_a_pipe_is_not_started_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    with pytest.raises(OSError, match="log is no regular file"):
        children.spawn(["true"], log_file=tmp_path / "log", death_signal=signal.SIGKILL)


def test_a_child_without_a_log_runs() -> None:
    child = children.spawn(
        ["/bin/sh", "-c", "echo out; exit 3"], log_file=None, death_signal=signal.SIGKILL
    )
    assert child.wait(10) == 3


def test_no_file_is_cut_through_a_link(
    tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a link to a file that is longer than a log may be
    monkeypatch.setattr(log_files, "MOST_LOG_BYTES", 3)
    monkeypatch.setattr(log_files, "KEPT_LOG_BYTES", 1)
    (tmp_path / "actor-0.log").symlink_to(mine)

    # when / then
    assert not log_files.cut_log(tmp_path / "actor-0.log")
    assert mine.read_text() == MINE
