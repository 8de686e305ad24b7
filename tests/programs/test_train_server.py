"""The server of impala-train: who reaches it, by what is printed, and what is left of it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from chaos.servers import OwnServer, free_port
from support import (
    BIN,
    Program,
    Programs,
    as_nobody,
    eventually,
    is_running,
    listeners_of,
    pressed_again_and_again,
)

pytestmark = pytest.mark.processes

ENDLESS = ("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none")

needs_redis_cli = pytest.mark.skipif(
    not shutil.which("redis-cli"), reason="needs redis-cli (apt install redis-tools)"
)
needs_proc = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="processes are looked at in /proc"
)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files that any user may enter, with a path short enough."""
    with tempfile.TemporaryDirectory(prefix="i") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


def train(programs: Programs, temporary: Path, *options: str) -> Program:
    """A training under way."""
    started = programs.start(
        *("impala-train", *ENDLESS, "--run-dir", "run", *options), cold=True, TMPDIR=str(temporary)
    )
    started.says("frames")
    return started


def children_of(training: Program) -> list[int]:
    """The process numbers of its server, learner and actor."""
    children = Path(f"/proc/{training.pid}/task/{training.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def server_of(training: Program) -> int:
    """The process number of its embedded server."""
    (server,) = (
        pid
        for pid in children_of(training)
        if b"-server" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    )
    return server


def printed(training: Program, what: str) -> str:
    """The command that stands behind `what` in the first lines of a training."""
    found = re.search(rf"^{what}: +(.+)$", training.output, re.MULTILINE)
    assert found is not None, training.output
    return found[1]


def typed(line: str) -> str:
    """What a line shows that is typed into a shell in which the project's environment is active."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.fault(63)
@needs_redis_cli
@needs_proc
def test_what_is_printed_reaches_the_server_and_nobody_else_does(
    programs: Programs, temporary: Path
) -> None:
    # given
    training = train(programs, temporary)
    (folder,) = temporary.iterdir()

    # then the commands work word by word, and an actor may join at the address
    assert 0 <= int(typed(printed(training, "the queue"))) <= 4
    assert "actor-0" in typed(printed(training, "all of it"))
    (address,) = re.findall(r"--redis-url (unix://\S+)", training.output)
    actor = programs.start("impala-actor", "--run", "cartpole", "--redis-url", address)
    actor.says("joined")

    # and the server listens on no port, and another user does not get to its socket
    assert listeners_of(server_of(training)) == set()
    if os.geteuid() == 0:
        path = address.removeprefix("unix://")
        refused = as_nobody(f"socket.socket(socket.AF_UNIX).connect({path!r})")
        assert "PermissionError" in refused
        assert "PermissionError" in as_nobody(f"os.listdir({str(folder)!r})")

    # and when all has ended, nothing of it is left
    for program in (actor, training):
        program.send(signal.SIGTERM)
    assert training.code() == 130
    assert list(temporary.iterdir()) == []


@needs_proc
@pytest.mark.parametrize("end", ["second Ctrl-C", "server killed"])
def test_no_folder_is_left_however_a_training_ends(
    programs: Programs, temporary: Path, end: str
) -> None:
    training = train(programs, temporary)
    if end == "server killed":
        os.kill(server_of(training), signal.SIGKILL)
        assert training.code() == 13
    else:
        for pid in children_of(training):
            if pid != server_of(training):
                os.kill(pid, signal.SIGSTOP)
        training.send(signal.SIGINT)
        training.says("Ctrl-C again ends at once")
        eventually(pressed_again_and_again(training))
        assert training.code(timeout_s=5) == 130
    assert list(temporary.iterdir()) == []


@needs_proc
def test_what_a_killed_training_leaves_goes_with_the_next_one(
    programs: Programs, temporary: Path
) -> None:
    # given a training that is killed
    training = train(programs, temporary)
    family = children_of(training)
    (left,) = temporary.iterdir()
    training.send(signal.SIGKILL)
    training.code()

    # then its server ends with the others, and a folder is left that holds a dead socket
    eventually(lambda: not any(map(is_running, family)))
    assert {path.name for path in left.iterdir()} == {"locked-by", "redis.sock"}

    # when it goes on, then the folder is gone
    training = train(programs, temporary, "--resume")
    (folder,) = temporary.iterdir()
    assert folder != left
    training.send(signal.SIGTERM)
    assert training.code() == 130


@pytest.mark.fault(64)
def test_a_run_directory_brings_nothing_into_the_server(
    programs: Programs, temporary: Path, own_server: OwnServer
) -> None:
    # given a run directory with the data of a server in it, as somebody may hand it on
    assert programs.run("impala-train", "--total-frames", "30000", "--run-dir", "run")[0] == 0
    with own_server.client() as client:
        client.function_load("#!lua name=evil\nredis.register_function('evil', function() end)")
        client.set("planted", "1")
        client.save()
    shutil.copy(own_server.directory / "data" / "dump.rdb", programs.folder / "run")

    # when it is resumed
    training = train(programs, temporary, "--resume")

    # then the server knows the run and nothing else
    (address,) = re.findall(r"--redis-url (unix://\S+)", training.output)
    with redis.Redis.from_url(address) as client:
        assert {key.split(b":")[0] for key in client.scan_iter()} == {b"impala"}
        assert not client.function_list(library="evil")
        with pytest.raises(redis.ResponseError, match="Function not found"):
            client.fcall("evil", 0)
    training.send(signal.SIGTERM)
    assert training.code() == 130
    assert "DB loaded" not in (programs.folder / "run" / "server.log").read_text()


# A port, for those who ask for one.


@needs_redis_cli
@needs_proc
def test_what_is_printed_with_a_port_works_and_no_password_is_in_it(
    programs: Programs, temporary: Path
) -> None:
    # given
    port = free_port()
    training = train(programs, temporary, "--embedded-port", str(port))
    (file,) = temporary.glob("*/password")
    password = file.read_text().strip()

    # then the commands work word by word
    assert 0 <= int(typed(printed(training, "the queue"))) <= 4
    assert "actor-0" in typed(printed(training, "all of it"))
    actor = programs.shell(printed(training, "to join"))
    actor.says("joined")

    # and the server listens there alone, for those who know the password
    assert listeners_of(server_of(training)) == {port}
    with (
        redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()

    # and that is in no argument of a program, and nowhere in what they write
    family = [training.pid, actor.pid, *children_of(training)]
    assert password.encode() not in b"".join(
        Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family
    )
    for program in (actor, training):
        program.send(signal.SIGTERM)
    assert training.code() == 130
    written = [path for path in (programs.folder / "run").rglob("*") if path.is_file()]
    assert len(written) > 5
    for path in written:
        assert password.encode() not in path.read_bytes(), path
    assert password not in "".join(program.output for program in programs.started)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "variables", "code", "said"),
    [
        (("--embedded-port", "0"), {}, 2, "0 is not in the range 1<=x<=65535"),
        (("--embedded-port", "65536"), {}, 2, "65536 is not in the range 1<=x<=65535"),
        (("--embedded-port", "x"), {}, 2, "'x' is not a valid integer"),
        ((), {"IMPALA_EMBEDDED_PORT": "0"}, 2, "0 is not in the range 1<=x<=65535"),
        (("--embedded-port", "7", "--redis-url", "redis://localhost"), {}, 2, "leave one of them"),
        (("--embedded-port", "7"), {"IMPALA_REDIS_URL": "unix:///x"}, 2, "leave one of them"),
    ],
)
def test_a_port_that_will_not_do_gets_one_sentence(
    programs: Programs, options: tuple[str, ...], variables: dict[str, str], code: int, said: str
) -> None:
    found, output = programs.run("impala-train", "--run-dir", "run", *options, **variables)
    assert found == code
    assert said in output
    assert "Traceback" not in output
    assert not (programs.folder / "run").exists()


def test_a_port_that_is_taken_gets_one_sentence(programs: Programs, temporary: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = ("impala-train", "--run-dir", "run", "--embedded-port", port)
        code, output = programs.run(*command, cold=True, TMPDIR=str(temporary))
    assert code == 13
    assert f"cannot have the port {port} (Address already in use)" in output
    assert len(output.splitlines()) == 1
    assert list(temporary.iterdir()) == []
