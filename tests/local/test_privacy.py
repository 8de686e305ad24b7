"""What other users of the machine, and files of others, can do to the embedded server: nothing."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis

from chaos.servers import free_port
from impala_redis.common.errors import ServerNotStarted
from impala_redis.common.local import private_folder
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.local.private_folder import (
    LOCKED_BY,
    PrivateFolder,
    remove_those_left_behind,
)
from impala_redis.common.local.server_program import SERVER_VARIABLE
from impala_redis.common.server.address import with_password
from support import as_nobody, eventually, listeners_of

pytestmark = pytest.mark.fault(63)

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


# A port, for those who ask for one.


@pytest.fixture
def with_port(
    any_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedServer]:
    """An embedded server that listens on a port as well, of each kind."""
    monkeypatch.setenv(SERVER_VARIABLE, str(any_server.binary))
    with EmbeddedServer(tmp_path, free_port()) as server:
        yield server


def password_of(server: EmbeddedServer) -> str:
    assert server.password_file is not None
    return server.password_file.read_text().strip()


FOREIGN_COMMANDS = (
    *("EVAL 'return 1' 0", "CONFIG GET *", "CONFIG SET bind 0.0.0.0", "RPUSH trajectories x"),
    *("FUNCTION LIST", "SHUTDOWN NOSAVE", "SAVE", "REPLICAOF 127.0.0.1 1", "INFO", "PING"),
)


@pytest.mark.parametrize("way", ["port", "socket"])
def test_without_the_password_no_command_is_carried_out(
    with_port: EmbeddedServer, way: str
) -> None:
    family = socket.AF_INET if way == "port" else socket.AF_UNIX
    place = ("127.0.0.1", with_port.port) if way == "port" else str(with_port.socket)
    with socket.socket(family) as stranger:
        stranger.settimeout(5)
        stranger.connect(place)
        for command in FOREIGN_COMMANDS:
            stranger.sendall(command.encode() + b"\r\n")
            assert stranger.recv(999).startswith(b"-NOAUTH"), command
        for login in ("x", "''", "default ''", "nobody x"):
            stranger.sendall(f"AUTH {login}\r\n".encode())
            assert stranger.recv(999).startswith(b"-WRONGPASS"), login


@only_root
def test_another_user_at_the_port_is_refused(with_port: EmbeddedServer) -> None:
    # given another user, who can connect
    talk = f"s = socket.socket(); s.settimeout(5); s.connect(('127.0.0.1', {with_port.port}))\n"
    for command in FOREIGN_COMMANDS:
        talk += f"s.sendall({command.encode() + bytes([13, 10])!r}); print(s.recv(999))\n"

    # then each command is answered in the same way
    lines = as_nobody(talk).splitlines()
    assert len(lines) == len(FOREIGN_COMMANDS)
    assert [line for line in lines if not line.startswith("b'-NOAUTH")] == []


@only_root
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")
def test_no_other_user_finds_the_password(with_port: EmbeddedServer) -> None:
    password = password_of(with_port)

    # in its file
    assert with_port.password_file is not None
    assert stat.S_IMODE(with_port.password_file.stat().st_mode) == 0o600
    assert "PermissionError" in as_nobody(f"open({str(with_port.password_file)!r})")

    # in what can be seen of any process, here and there
    for shown in ("cmdline", "environ", "status", "comm"):
        look = "for name in glob.glob('/proc/[0-9]*/@'):\n try: print(open(name).read())\n except "
        look = look.replace("@", shown) + "OSError: pass"
        seen = as_nobody(look)
        assert password not in seen
        assert shown == "environ" or "-server" in seen  # it has been looked at
    with redis.Redis.from_url(with_port.url) as client:
        pid = client.info("server")["process_id"]
    for shown in ("cmdline", "environ"):
        assert password.encode() not in Path(f"/proc/{pid}/{shown}").read_bytes()

    # or in the run directory
    assert password not in with_port.log.read_text()
    assert [path.name for path in with_port.log.parent.iterdir()] == ["server.log"]


def test_with_the_password_both_addresses_lead_to_the_server(with_port: EmbeddedServer) -> None:
    far = with_password(with_port.public_url, password_of(with_port))
    with redis.Redis.from_url(with_port.url) as mine, redis.Redis.from_url(far) as others:
        mine.set("x", "1")
        assert others.get("x") == b"1"
        assert mine.config_get("bind") == {"bind": "127.0.0.1"}
        assert listeners_of(mine.info("server")["process_id"]) == {with_port.port}
    assert password_of(with_port) not in with_port.public_url


def test_each_server_has_a_password_of_its_own(with_port: EmbeddedServer, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, free_port()) as another:
        assert password_of(another) != password_of(with_port)
        assert len(password_of(another)) >= 32


@pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_gets_one_sentence(
    tmp_path: Path, temporary: Path, interface: str
) -> None:
    with socket.create_server((interface, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerNotStarted, match=f"port {port} .*in use.*--embedded-port") as one:
            EmbeddedServer(tmp_path, port)
    assert len(str(one.value).splitlines()) == 1
    assert list(temporary.iterdir()) == []


def test_a_disk_without_room_for_the_password_gets_one_sentence(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def full(path: Any, *args: Any, **options: Any) -> int:
        if Path(path).name == "password":
            raise OSError(28, "No space left on device")
        return opened(path, *args, **options)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(ServerNotStarted, match=r"No space left on device.*TMPDIR"):
        EmbeddedServer(tmp_path, free_port())
    monkeypatch.undo()
    assert list(temporary.iterdir()) == []


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
        eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
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


@pytest.mark.parametrize("locked_by", [None, b"another machine", b"", b"\xff"])
def test_a_new_folder_and_one_of_another_machine_are_left(
    temporary: Path, locked_by: bytes | None
) -> None:
    # given one that its process has not locked yet, or a lock that cannot be seen from here
    folder = temporary / "impala-x"
    folder.mkdir(0o700)
    (folder / "redis.sock").touch()
    if locked_by is not None:
        (folder / LOCKED_BY).write_bytes(locked_by)

    # when / then
    remove_those_left_behind()
    assert folder.exists()


@only_root
def test_a_folder_of_another_user_or_that_others_can_write_is_left(temporary: Path) -> None:
    # given folders that look as if left behind
    for name, mode, owner in (("others", 0o700, 65534), ("open", 0o777, 0)):
        folder = temporary / f"impala-{name}"
        folder.mkdir()
        (folder / LOCKED_BY).write_text(os.uname().nodename)
        folder.chmod(mode)
        os.chown(folder, owner, -1)

    # when / then
    remove_those_left_behind()
    assert len(list(temporary.glob("*/*"))) == 2


@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
def test_what_is_no_folder_is_left_alone(temporary: Path, tmp_path: Path, kind: str) -> None:
    # given something else of that name, and a folder that a link leads to
    mine = tmp_path / "mine"
    mine.mkdir(0o700)
    (mine / LOCKED_BY).write_text(os.uname().nodename)
    odd = temporary / "impala-odd"
    make: dict[str, Callable[[], object]] = {
        "link": lambda: odd.symlink_to(mine),
        "file": odd.touch,
        "pipe": lambda: os.mkfifo(odd),
    }
    make[kind]()

    # when / then
    remove_those_left_behind()
    assert os.path.lexists(odd)
    assert (mine / LOCKED_BY).exists()


def test_a_folder_stays_as_long_as_its_process_and_goes_once(temporary: Path) -> None:
    folder = PrivateFolder()
    remove_those_left_behind()
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
    remove_those_left_behind()
    assert folder.path.exists()
    folder.remove()
    assert list(temporary.iterdir()) == []
