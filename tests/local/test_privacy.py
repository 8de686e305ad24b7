"""What other users of the machine, and files of others, can do to the embedded server: nothing."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import redis

from impala_redis.common.local import private_folder
from impala_redis.common.local.embedded import SOCKET_NAME, EmbeddedServer
from impala_redis.common.local.private_folder import PrivateFolder, remove_those_left_behind
from impala_redis.common.local.server_program import SERVER_VARIABLE
from support import as_nobody, eventually, listeners_of

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")

LIBRARY = "#!lua name=evil\nredis.register_function('evil', function() return 'evil' end)"


@pytest.fixture
def running(
    any_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedServer]:
    """An embedded server as impala-train starts it, of each kind."""
    monkeypatch.setenv(SERVER_VARIABLE, str(any_server.binary))
    with EmbeddedServer(tmp_path) as server:
        yield server


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files: one of the test's own, with a short path."""
    with tempfile.TemporaryDirectory(prefix="i") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


# Other users.


@only_root
def test_no_other_user_reaches_the_server(running: EmbeddedServer) -> None:
    # given a place that others can get to
    folder = running.socket.parent
    assert as_nobody(f"os.stat({str(folder)!r})") == ""

    # then they can neither connect nor look into the folder, enter it or put something there
    path = repr(str(running.socket))
    for attempt in (
        f"socket.socket(socket.AF_UNIX).connect({path})",
        f"os.listdir({str(folder)!r})",
        f"os.chdir({str(folder)!r})",
        f"os.stat({path})",
        f"open({str(folder / 'dump.rdb')!r}, 'w')",
        f"os.rename({str(folder)!r}, {str(folder) + '-away'!r})",
    ):
        assert "PermissionError" in as_nobody(attempt), attempt


@pytest.mark.skipif(sys.platform != "linux", reason="sockets of a process are seen in /proc")
def test_the_server_listens_on_no_port(running: EmbeddedServer) -> None:
    with redis.Redis.from_url(running.url) as client:
        pid = client.info("server")["process_id"]
        assert client.config_get("port") == {"port": "0"}
    assert listeners_of(pid) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="sockets of a process are seen in /proc")
def test_a_listener_would_be_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert listening.getsockname()[1] in listeners_of(os.getpid())


# Files of others.


@pytest.mark.parametrize("kind", ["dump.rdb", "appendonlydir"])
def test_nothing_that_lies_in_the_run_directory_is_loaded(
    any_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # given a run directory in which another server has left its data and a function of its own
    run = tmp_path / "run"
    run.mkdir()
    keeps = ["--appendonly", "yes"] if kind == "appendonlydir" else []
    address = tmp_path / "s"  # relative for a short path
    with subprocess.Popen(
        [any_server.binary, "--port", "0", "--unixsocket", "../s", "--dir", str(run), *keeps],
        cwd=run,
        stdout=subprocess.DEVNULL,
    ) as planter:
        eventually(address.exists)
        monkeypatch.chdir(tmp_path)
        with redis.Redis(unix_socket_path="s") as client:
            client.function_load(LIBRARY)
            client.set("planted", "1")
            if not keeps:
                client.save()
        planter.terminate()
    assert (run / kind).exists()
    planted = {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    # when
    monkeypatch.setenv(SERVER_VARIABLE, str(any_server.binary))
    with EmbeddedServer(run) as running, redis.Redis.from_url(running.url) as client:
        # then nothing of it is there, not even when a server is told to read what it has
        assert client.dbsize() == 0
        assert client.function_list() == []
        with pytest.raises(redis.ResponseError, match="Function not found"):
            client.fcall("evil", 0)

    # and nothing was written there
    (run / "server.log").unlink()
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == planted


def test_nothing_that_the_server_writes_outlives_it(running: EmbeddedServer) -> None:
    # given a server that is told to write all that it can
    folder = running.socket.parent
    with redis.Redis.from_url(running.url) as client:
        client.set("x", "1")
        client.save()
        client.config_set("appendonly", "yes")
        eventually((folder / "appendonlydir").exists)
        assert {path.name for path in folder.iterdir()} >= {
            *("redis.sock", "dump.rdb", "appendonlydir")
        }

    # when it is closed
    running.close()

    # then only its words are left
    assert not folder.exists()
    assert [path.name for path in running.log.parent.iterdir()] == ["server.log"]


# What is left behind.

STARTER = """
import sys, time
from pathlib import Path
from impala_redis.common.local.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
print(server.socket, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_the_next_server_removes_what_a_killed_one_has_left(
    tmp_path: Path, temporary: Path
) -> None:
    # given two servers, one with a starter that is killed
    folders, starters = [], []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(temporary)},
        )
        assert process.stdout is not None
        folders.append(Path(process.stdout.readline().strip()).parent)
        starters.append(process)
    starters[0].kill()
    starters[0].wait(10)
    assert all(folder.parent == temporary and folder.exists() for folder in folders)

    # when the next one starts
    with EmbeddedServer(tmp_path):
        # then that one's folder is gone, and the other's is not
        assert [folder.exists() for folder in folders] == [False, True]
    for process in starters:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_a_folder_without_a_server_is_left_since_it_may_be_new(temporary: Path) -> None:
    (temporary / "impala-new").mkdir(0o700)
    remove_those_left_behind(SOCKET_NAME)
    assert (temporary / "impala-new").exists()


@only_root
def test_a_folder_of_another_user_or_that_others_can_write_is_left(temporary: Path) -> None:
    # given folders that look as if left behind
    for name, mode, owner in (("others", 0o700, 65534), ("open", 0o777, 0)):
        folder = temporary / f"impala-{name}"
        folder.mkdir()
        (folder / SOCKET_NAME).touch()
        folder.chmod(mode)
        os.chown(folder, owner, -1)

    # when / then
    remove_those_left_behind(SOCKET_NAME)
    assert len(list(temporary.glob("*/*"))) == 2


@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
def test_what_is_no_folder_is_left_alone(temporary: Path, tmp_path: Path, kind: str) -> None:
    # given something else of that name, and a folder that a link leads to
    mine = tmp_path / "mine"
    mine.mkdir(0o700)
    (mine / SOCKET_NAME).touch()
    odd = temporary / "impala-odd"
    make: dict[str, Callable[[], object]] = {
        "link": lambda: odd.symlink_to(mine),
        "file": odd.touch,
        "pipe": lambda: os.mkfifo(odd),
    }
    make[kind]()

    # when / then
    remove_those_left_behind(SOCKET_NAME)
    assert os.path.lexists(odd)
    assert (mine / SOCKET_NAME).exists()


def test_a_folder_stays_as_long_as_its_process_and_goes_once(temporary: Path) -> None:
    folder = PrivateFolder()
    (folder.path / SOCKET_NAME).touch()
    remove_those_left_behind(SOCKET_NAME)
    assert folder.path.exists()
    folder.remove()
    folder.remove()
    assert list(temporary.iterdir()) == []


def test_where_there_are_no_locks_a_folder_stays(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a file system without locks
    def refuse(*_: object) -> NoReturn:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(private_folder.fcntl, "flock", refuse)

    # then a folder can be had, nobody takes it for one that was left behind, and it can be removed
    folder = PrivateFolder()
    (folder.path / SOCKET_NAME).touch()
    remove_those_left_behind(SOCKET_NAME)
    assert folder.path.exists()
    folder.remove()
    assert list(temporary.iterdir()) == []
