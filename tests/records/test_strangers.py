"""A run directory that a stranger has made: nothing outside of it is written, deleted or shown.

What it holds is read within bounds of time and memory, and what does not fit gets a sentence.
"""

import fcntl
import json
import os
import resource
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from impala_redis.common import files
from impala_redis.common.envs import video
from impala_redis.common.errors import (
    CheckpointError,
    ImpalaError,
    RunDirectoryError,
    RunUnreadable,
)
from impala_redis.common.playing.saved import from_checkpoint
from impala_redis.common.records import checkpoint, history, lines
from impala_redis.common.records.history import read_run
from impala_redis.common.records.recorder import Recorder
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.records.tensorboard_file import EventFile
from impala_redis.workers import report

pytestmark = pytest.mark.fault(64)

MINE = "what is mine\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDeeZ9 stranger"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run directory."""
    return Path(shutil.copytree(Path(__file__).parent / "run_of_0_1", tmp_path / "run"))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user's, outside of the run directory."""
    path = tmp_path / "authorized_keys"
    path.write_text(MINE)
    return path


def page_of(run: Path) -> str:
    """Writes the report as impala-report does, without charts; returns the page."""
    groups = history.grouped([read_run(run)])
    page = report.default_page([run])
    report.write(page, report.rendered(groups, []), [])
    return page.read_text()


# Writing.


def test_a_report_does_not_follow_a_link_that_waits_under_the_name_of_its_temporary_file(
    run: Path, mine: Path
) -> None:
    # given the names that release 0.1 took, and a run's name that would be a line of its own
    for number in (os.getpid(), *range(1, 50)):
        (run / f".report.html.{number}.tmp").symlink_to(mine)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace('"cartpole"', json.dumps(f"x\n{KEY}\n"), 1))

    # when
    page = page_of(run)

    # then
    assert mine.read_text() == MINE
    assert KEY in page
    assert not [line for line in page.splitlines() if line.startswith("ssh-")]


@pytest.mark.parametrize("place", ["preset", "status", "error", "versions", "env"])
def test_no_text_of_a_runs_files_begins_a_line_of_the_page(run: Path, place: str) -> None:
    # given
    text = f"x\r\n{KEY}\n\x1b[2J\u202e"
    result = json.loads((run / "result.json").read_text())
    result |= {"versions": {text: text}} if place == "versions" else {place: text}
    (run / "result.json").write_text(json.dumps(result))
    config = (run / "config.toml").read_text()
    begin = f"{place} = "
    (run / "config.toml").write_text(
        "\n".join(
            begin + json.dumps(text) if line.startswith(begin) else line
            for line in config.splitlines()
        )
    )

    # when
    page = page_of(run)

    # then
    assert not [line for line in page.splitlines() if line.lstrip().startswith("ssh-")]
    assert not set(page) & set("\x1b\r\u202e")
    assert "ssh-" in page or place == "status"


@pytest.mark.parametrize("name", ["report.html", "config.toml", "result.json"])
def test_a_file_that_is_written_replaces_a_link_of_its_name(
    run: Path, mine: Path, name: str
) -> None:
    # given
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine)

    # when
    files.write_atomically(run / name, b"new")

    # then
    assert mine.read_text() == MINE
    assert not (run / name).is_symlink()
    assert (run / name).read_text() == "new"


def test_charts_are_not_written_into_a_folder_that_is_a_link(run: Path, tmp_path: Path) -> None:
    # given a folder of the user's with a file that is named as a chart is
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "actors.png").write_text(MINE)
    (run / "report-charts").symlink_to(tmp_path / "pictures")

    # when / then
    with pytest.raises(RunDirectoryError, match="report-charts is a symbolic link"):
        page_of(run)
    assert (tmp_path / "pictures" / "actors.png").read_text() == MINE


@pytest.mark.parametrize("folder", ["checkpoints", "logs"])
def test_a_folder_that_is_a_link_is_not_taken_for_a_runs(
    run: Path, tmp_path: Path, folder: str
) -> None:
    # given
    if (run / folder).exists():
        (run / folder).rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    before = sorted((tmp_path / "elsewhere").iterdir())
    (run / folder).symlink_to(tmp_path / "elsewhere")

    # when / then
    with pytest.raises(RunDirectoryError, match=f"{folder} is a symbolic link"):
        RunDirectory(run).prepare("learner", resume=True)
    assert sorted((tmp_path / "elsewhere").iterdir()) == before


@pytest.mark.parametrize(
    "work",
    [
        lambda folder: checkpoint.discard_after(folder, 0),
        lambda folder: checkpoint.save(folder, 1, {}, {}, 1),
    ],
    ids=["discard", "save"],
)
def test_no_checkpoint_is_deleted_or_written_through_a_link(
    tmp_path: Path, work: Callable[[Path], None]
) -> None:
    # given checkpoints of another run, a leftover and half a checkpoint among them
    theirs = tmp_path / "theirs"
    for updates in (1, 2):
        checkpoint.save(theirs, updates, {}, {}, 9)
    for name in (".checkpoint-1.json.12.tmp", "checkpoint-3.safetensors"):
        (theirs / name).write_text(MINE)
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    (tmp_path / "checkpoints").symlink_to(theirs)

    # when / then
    with pytest.raises(OSError, match="checkpoints is a symbolic link"):
        work(tmp_path / "checkpoints")
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == before


@pytest.mark.parametrize("place", ["metrics.jsonl", "events"])
def test_records_are_not_appended_through_a_link(tmp_path: Path, mine: Path, place: str) -> None:
    # given a link under the name of this second, or of one of the next
    host = os.uname().nodename
    names = [f"events.out.tfevents.{int(time.time()) + n:010d}.{host}" for n in range(20)]
    (tmp_path / "new").mkdir()
    for name in names if place == "events" else [place]:
        (tmp_path / "new" / name).symlink_to(mine)

    # when / then
    with pytest.raises(OSError, match="is a symbolic link"):
        if place == "events":
            EventFile(tmp_path / "new", None)
        else:
            Recorder(tmp_path / "new")
    assert mine.read_text() == MINE


def test_a_video_replaces_a_link_of_its_name(
    tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "episode.mp4").symlink_to(mine)

    # when a recording is kept under that name
    with video.recording(tmp_path / "videos") as recording:
        (recorded,) = (tmp_path / "videos").glob(".recording-*")
        (recorded / "rl-video-episode-0.mp4").write_text("moving")
        monkeypatch.setattr(recording, "_recorder", type("Done", (), {"recording": False}))
        kept = recording.keep("episode")

    # then
    assert mine.read_text() == MINE
    assert kept.read_text() == "moving"


def test_what_a_kill_has_left_unfinished_is_removed_whatever_version_was_killed(
    tmp_path: Path,
) -> None:
    # given leftovers of 0.1 and of today, and what is none
    old, new = ".metrics.jsonl.4711.tmp", ".metrics.jsonl.0123456789abcdef.tmp"
    others = [".metrics.jsonl.notes.tmp", ".other.4711.tmp", "metrics.jsonl"]
    for name in (old, new, *others):
        (tmp_path / name).touch()
    (tmp_path / ".metrics.jsonl.5.tmp").mkdir()

    # when
    RunDirectory(tmp_path).remove_leftovers()

    # then
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*others, ".metrics.jsonl.5.tmp"]
    )


# Locks.


@pytest.mark.parametrize("program", ["train", "learner"])
def test_a_lock_can_be_opened_by_its_owner_alone(run: Path, program: str) -> None:
    # given one that release 0.1 has left, which anybody could lock
    lock = run / f".{program}.lock"
    lock.touch(0o644)
    lock.chmod(0o644)

    # when
    RunDirectory(run).prepare(program, resume=True)

    # then it is held, and closed to others
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    with lock.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("program", ["train", "learner"])
def test_a_lock_that_is_a_link_is_refused(run: Path, mine: Path, program: str) -> None:
    (run / f".{program}.lock").symlink_to(mine)
    with pytest.raises(RunDirectoryError, match="lock is a symbolic link"):
        RunDirectory(run).prepare(program, resume=True)


# Reading.


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_directory(path: Path) -> None:
    path.mkdir()


def as_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000_000_000)


ODD = (as_fifo, as_zeros, as_directory, as_sparse)


@pytest.fixture
def little_memory() -> object:
    """Bounds this process's memory to little more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + 500_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("name", "odd"),
    [
        (name, odd)
        for name in ("config.toml", "result.json", "metrics.jsonl")
        for odd in ODD
        if (name, odd) != ("metrics.jsonl", as_sparse)  # may be honest, and is read in pieces
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_a_report_of_odd_files_ends_with_a_sentence(
    run: Path, name: str, odd: Callable[[Path], None]
) -> None:
    # given
    (run / name).unlink()
    odd(run / name)

    # when / then
    with pytest.raises(RunUnreadable, match=rf"{name} (is|is no|is a|is longer) "):
        read_run(run)


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("named", [False, True])
def test_a_checkpoint_of_odd_files_ends_with_a_sentence(
    run: Path, suffix: str, odd: Callable[[Path], None], named: bool
) -> None:
    # given
    document = run / "checkpoints" / "checkpoint-000000000098.json"
    document.with_suffix(suffix).unlink()
    odd(document.with_suffix(suffix))

    # when / then
    with pytest.raises(CheckpointError):
        from_checkpoint(document if named else run)


@pytest.mark.parametrize("name", ["config.toml", "result.json", "metrics.jsonl"])
def test_a_report_does_not_show_what_a_link_leads_to(run: Path, mine: Path, name: str) -> None:
    (run / name).rename(mine)
    (run / name).symlink_to(mine)
    with pytest.raises(RunUnreadable, match=f"{name} is a symbolic link"):
        read_run(run)


def test_a_resumed_run_takes_no_settings_through_a_link(run: Path, mine: Path) -> None:
    (run / "config.toml").rename(mine)
    (run / "config.toml").symlink_to(mine)
    with pytest.raises(ImpalaError, match=r"config\.toml is a symbolic link"):
        RunDirectory(run).read_config()


def test_a_checkpoint_is_found_through_no_link_unless_the_user_names_it(
    run: Path, tmp_path: Path
) -> None:
    # given a folder of checkpoints that is a link, and a link to a checkpoint's file
    shutil.copytree(run / "checkpoints", tmp_path / "theirs")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(tmp_path / "theirs")
    (tmp_path / "copies").mkdir()
    for path in (tmp_path / "theirs").iterdir():
        (tmp_path / "copies" / path.name).symlink_to(path)

    # when / then
    for place in (run, tmp_path / "copies"):
        with pytest.raises(CheckpointError):
            from_checkpoint(place)
    from_checkpoint(run / "checkpoints")
    from_checkpoint(tmp_path / "copies" / "checkpoint-000000000098.json")


def test_a_run_directory_that_the_user_names_may_be_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    assert page_of(tmp_path / "link")
    from_checkpoint(tmp_path / "link")
    RunDirectory(tmp_path / "link").prepare("learner", resume=True)


@pytest.mark.usefixtures("little_memory")
def test_a_line_without_an_end_is_passed_over_and_not_held(run: Path) -> None:
    # given 700 million zeros, or so a sparse file says, and a record behind them
    count = read_run(run).records.count
    with (run / "metrics.jsonl").open("r+b") as file:
        file.truncate(os.fstat(file.fileno()).st_size + 700_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"frames": 1}\n')

    # when / then
    read = read_run(run)
    assert (read.records.count, read.skipped_lines) == (count + 1, 1)
    Recorder(run, 10**9).close()
    assert (run / "metrics.jsonl").stat().st_size < 10_000_000


def test_the_longest_line_that_is_read_is_a_mebibyte(run: Path) -> None:
    # given
    def line(length: int) -> bytes:
        return b'{"a":"' + b"x" * (length - 9) + b'"}\n'

    (run / "metrics.jsonl").write_bytes(
        line(lines.MOST_LINE_BYTES) + line(lines.MOST_LINE_BYTES + 1) + b'{"frames": 1}'
    )

    # when / then
    read = read_run(run)
    assert (read.records.count, read.skipped_lines) == (2, 1)


def test_of_more_records_than_can_be_held_every_other_one_is_read_and_the_last(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a hundred records of three figures, of which one is a list
    records = [
        {"frames": n, "updates": n, "episode_returns": [n, n], "late": n if n > 50 else None}
        for n in range(100)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    monkeypatch.setattr(history, "MOST_NUMBERS", 60)

    # when
    found = read_run(run).records

    # then
    kept = [*range(0, 99, found.every), 99]
    assert 2 < found.every <= 16
    assert found.column("frames").tolist() == kept
    assert found.count * 3 + sum(len(v) for _, v in found.lists["episode_returns"]) <= 66
    np.testing.assert_array_equal(found.column("late"), [n if n > 50 else np.nan for n in kept])
    for record, values in found.lists["episode_returns"]:
        assert values.tolist() == [kept[record]] * 2
    assert f"only one of {found.every} was read" in page_of(run)


def test_names_and_lists_without_end_are_left_out_of_a_record(run: Path) -> None:
    # given
    record = {"frames": 1, "x" * 10_000: 1, "episode_returns": [1.0] * 100_000}
    (run / "metrics.jsonl").write_text(json.dumps(record))

    # when / then
    found = read_run(run).records
    assert list(found.numbers) == ["frames"]
    assert len(found.lists["episode_returns"][0][1]) == history.LONGEST_LIST


@pytest.mark.parametrize("updates", ["1e999", "NaN", "true", '"3"', "[1]", "-1e999", "10e400"])
@pytest.mark.parametrize("name", ["updates", "frames", "time_s"])
def test_records_of_any_json_are_resumed_after(run: Path, name: str, updates: str) -> None:
    # given
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f'{{"updates": 1, "frames": 2, "{name}": {updates}}}\n')
        file.write(f'{{"deep": {"[" * 50_000}\n')

    # when / then: it can be gone on with
    recorder = Recorder(run, 10**6)
    recorder.record({"frames": 3, "updates": 2, "unix_s": 1.0})
    recorder.close()
    assert 0 <= recorder.time_s < 1e9
