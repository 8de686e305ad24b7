"""The embedded server: which one is taken, how it is set, and that it dies with its starter."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from impala_redis.common.errors import ServerNotStarted
from impala_redis.common.local import children
from impala_redis.common.local import embedded as server
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.local.server_program import SERVER_VARIABLE
from support import eventually, is_running, script


def pid_of(running: EmbeddedServer) -> int:
    with redis.Redis.from_url(running.url) as client:
        return int(client.info("server")["process_id"])


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path so short that a socket in it has room."""
    with tempfile.TemporaryDirectory(prefix="i") as folder:
        yield Path(folder)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not there is given up soon."""
    monkeypatch.setattr(server, "START_TIMEOUT_S", 1.0)


# A running server.


def test_the_server_is_set_to_keep_nothing_evict_nothing_and_be_private(
    any_server: EmbeddedServer,
) -> None:
    with redis.Redis.from_url(any_server.url) as client:
        found = {
            name: client.config_get(name)[name]
            for name in ("save", "appendonly", "maxmemory-policy", "bind", "protected-mode")
        }
        assert found == {
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
            "protected-mode": "yes",
        }
        assert int(client.config_get("maxmemory")["maxmemory"]) > 0


def test_only_its_owner_may_use_the_socket(any_server: EmbeddedServer) -> None:
    mode = any_server.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o700
    assert stat.S_IMODE(any_server.socket.parent.stat().st_mode) == 0o700


def test_closing_ends_the_server_and_removes_its_folder(
    any_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a server of the same kind
    monkeypatch.setenv(SERVER_VARIABLE, str(any_server.binary))
    running = EmbeddedServer(tmp_path)
    pid = pid_of(running)
    assert running.binary == any_server.binary
    assert running.socket.parent.is_dir()

    # when it is closed
    running.close()

    # then process and folder are gone; its words and nothing else are left
    assert not running.alive
    assert not is_running(pid)
    assert not running.socket.parent.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["server.log"]
    assert running.log.read_text() != ""

    # and closing again does no harm
    running.close()


def test_closing_after_the_server_was_killed_removes_what_it_left(tmp_path: Path) -> None:
    # given a server that had no time to remove its socket
    running = EmbeddedServer(tmp_path)
    os.kill(pid_of(running), signal.SIGKILL)
    eventually(lambda: not running.alive)
    assert running.socket.exists()

    # when it is closed, then its folder is gone
    running.close()
    assert not running.socket.parent.exists()


def test_leaving_by_an_error_closes_the_server(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), EmbeddedServer(tmp_path) as running:
        pid = pid_of(running)
        raise RuntimeError("on purpose")
    assert not is_running(pid)
    assert not running.socket.parent.exists()


def test_ending_at_once_leaves_no_folder_either(tmp_path: Path) -> None:
    running = EmbeddedServer(tmp_path)
    pid = pid_of(running)
    running.kill()
    eventually(lambda: not is_running(pid))
    assert not running.socket.parent.exists()
    running.close()


@pytest.mark.parametrize("name", ["two words", "50%25", "a#b", "what?", "übung"])
def test_the_folder_for_temporary_files_may_have_any_name(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (short / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(short / name))
    with EmbeddedServer(tmp_path) as running:
        assert running.socket.parent.parent == short / name
        assert pid_of(running)
    assert list((short / name).iterdir()) == []


@pytest.mark.parametrize("name", ["two words", "50%25", "long-" * 40])
def test_the_run_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with EmbeddedServer(tmp_path / name) as running:
        assert pid_of(running)
        assert running.log.parent == tmp_path / name


@pytest.mark.parametrize("temporary", ["nowhere", "too long", "not sticky"])
def test_a_folder_for_temporary_files_that_will_not_do_gets_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: str
) -> None:
    # given one that is missing, too long for a socket, or open to all without the sticky bit
    folder = tmp_path / ("long-" * 30 if temporary == "too long" else "folder")
    if temporary != "nowhere":
        folder.mkdir()
    if temporary == "not sticky":
        folder.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    # when / then
    with pytest.raises(ServerNotStarted, match=r"folder.*socket.*set TMPDIR to ") as refused:
        EmbeddedServer(tmp_path)
    assert str(folder) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert temporary == "nowhere" or list(folder.iterdir()) == []
    assert not (tmp_path / "server.log").exists()


def test_what_is_done_while_the_server_starts_may_fail(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given something to do meanwhile, which finds the server's folder there
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    found: list[Path] = []

    def fail() -> None:
        found.extend(short.iterdir())
        raise RuntimeError("on purpose")

    # when it fails, then no folder is left, and so no server
    with pytest.raises(RuntimeError, match="on purpose"):
        EmbeddedServer(tmp_path, meanwhile=fail)
    assert len(found) == 1
    assert list(short.iterdir()) == []


def test_two_servers_run_side_by_side(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with EmbeddedServer(tmp_path / "one") as one, EmbeddedServer(tmp_path / "two") as two:
        assert pid_of(one) != pid_of(two)
        assert one.url != two.url


# Servers that do not start.


def test_a_server_that_ends_at_once_is_not_waited_for(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))

    # given a server that cannot start
    broken = script(tmp_path / "broken", "echo 'Fatal: no luck today' >&2", "exit 1")
    monkeypatch.setenv("IMPALA_REDIS_SERVER", str(broken))

    # when it is started
    started = time.monotonic()
    with pytest.raises(ServerNotStarted, match=r"broken did not start.*server\.log"):
        EmbeddedServer(tmp_path)

    # then that is noticed at once, and its words are where the message says
    assert time.monotonic() - started < 5.0
    assert "no luck today" in (tmp_path / "server.log").read_text()
    assert list(short.iterdir()) == []


def test_a_server_keeps_its_memory_unless_the_user_sets_malloc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a user who has set one of the two variables
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1048576")
    telling = script(tmp_path / "telling", "env", "exit 1")
    monkeypatch.setenv("IMPALA_REDIS_SERVER", str(telling))

    # when a server is started, then it has the user's, and ours for the other
    with pytest.raises(ServerNotStarted):
        EmbeddedServer(tmp_path)
    told = (tmp_path / "server.log").read_text().splitlines()
    assert "MALLOC_TRIM_THRESHOLD_=1048576" in told
    assert "MALLOC_MMAP_THRESHOLD_=33554432" in told


def test_a_server_that_never_answers_is_ended(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))

    # given a program that runs, and is no server
    mute = script(tmp_path / "mute", f"echo $$ > {tmp_path}/pid", "exec sleep 60")
    monkeypatch.setenv("IMPALA_REDIS_SERVER", str(mute))
    monkeypatch.setattr(server, "START_TIMEOUT_S", 0.5)

    # when it is started, then it is given up and ended
    with pytest.raises(ServerNotStarted):
        EmbeddedServer(tmp_path)
    assert not is_running(int((tmp_path / "pid").read_text()))
    assert list(short.iterdir()) == []


# Its life hangs on ours.

STARTER = """
import sys, time
from pathlib import Path
import redis
from impala_redis.common.local.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
print(redis.Redis.from_url(server.url).info("server")["process_id"], flush=True)
time.sleep(60)
"""


@pytest.fixture
def starter(any_server: EmbeddedServer, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A process that has started a server: its number, and the server's."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"IMPALA_REDIS_SERVER": str(any_server.binary)},
    )
    assert process.stdout is not None
    servers = int(process.stdout.readline())
    yield process.pid, servers
    process.kill()
    process.wait(10)
    process.stdout.close()
    with contextlib.suppress(ProcessLookupError):  # it outlived its starter: the test has failed
        os.kill(servers, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_the_server_dies_with_a_starter_that_is_killed(starter: tuple[int, int]) -> None:
    # given a server whose starter runs
    mine, servers = starter
    assert is_running(servers)

    # when the starter is killed without a chance to close anything
    os.kill(mine, signal.SIGKILL)

    # then the server is gone too
    eventually(lambda: not is_running(servers))


def test_a_signal_from_the_terminal_does_not_reach_the_server(any_server: EmbeddedServer) -> None:
    assert os.getsid(pid_of(any_server)) != os.getsid(0)


# Children.


def test_a_childs_words_are_added_to_its_log(tmp_path: Path) -> None:
    # given a log with something in it
    log = tmp_path / "log"
    log.write_text("before\n")

    # when a child prints and fails
    child = children.spawn(
        ["/bin/sh", "-c", "echo out; echo $WORD >&2; exit 3"],
        log_file=log,
        death_signal=signal.SIGTERM,
        environment={"WORD": "err"},
    )

    # then both streams are in the log, and the code is returned
    child.wait(10)
    assert children.end(child, grace_s=1.0) == 3
    assert log.read_text() == "before\nout\nerr\n"


def test_a_child_that_listens_ends_in_order(tmp_path: Path) -> None:
    child = children.spawn(
        ["/bin/sh", "-c", "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.01; done"],
        log_file=tmp_path / "log",
        death_signal=signal.SIGKILL,
    )
    eventually(lambda: "hello" in (tmp_path / "log").read_text())
    assert children.end(child, grace_s=10.0) == 7
    assert "bye" in (tmp_path / "log").read_text()


def test_a_child_that_does_not_listen_is_killed_after_its_time(tmp_path: Path) -> None:
    child = children.spawn(
        ["/bin/sh", "-c", "trap '' TERM; echo hello; while :; do sleep 0.01; done"],
        log_file=tmp_path / "log",
        death_signal=signal.SIGKILL,
    )
    eventually(lambda: "hello" in (tmp_path / "log").read_text())
    started = time.monotonic()
    assert children.end(child, grace_s=0.2) == -signal.SIGKILL
    assert time.monotonic() - started < 5.0
