"""Passwords of the server: neither an environment nor what it starts finds one where it looks."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.hardened import HardenedServer
from impala_redis.common.local import embedded
from impala_redis.common.server.address import with_password
from impala_redis.workers import credentials
from support import Program, Programs

# It leaves what it finds in its environment, in that of a process that it starts, and in what the
# system shows of its own process and of those above, as far as the test.
NOSY = """
import os
import subprocess
from pathlib import Path

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv


class Nosy(CartPoleEnv):
    def __init__(self, **options):
        super().__init__(**options)
        seen = [repr(dict(os.environ)).encode(), subprocess.check_output(["env"])]
        pid = os.getpid()
        while pid not in (1, int(os.environ["NOSY_UP_TO"])):
            place = Path(f"/proc/{pid}")
            seen += [(place / "environ").read_bytes(), (place / "cmdline").read_bytes()]
            pid = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        Path(os.environ["NOSY_SEES"], str(os.getpid())).write_bytes(b"\\n".join(seen))


gymnasium.register("Nosy-v0", entry_point=Nosy, max_episode_steps=20)
"""

SMALL = ("--env", "nosy:Nosy-v0", "--total-frames", "2000", "--envs-per-actor", "2")


@pytest.fixture
def guarded(tmp_path: Path, run_name: str) -> Iterator[HardenedServer]:
    """A server with users for this test alone, with the functions."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    with HardenedServer(folder, embedded.find_server(), run_name) as running:
        running.load_functions()
        yield running


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the environment leaves what it has seen."""
    (tmp_path / "nosy.py").write_text(NOSY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NOSY_UP_TO", str(os.getpid()))
    folder = tmp_path / "seen"
    folder.mkdir()
    monkeypatch.setenv("NOSY_SEES", str(folder))
    return folder


def login(server: HardenedServer, user: str, how: str) -> dict[str, str]:
    """The variables of a program that is that user."""
    if how == "by a file":
        return server.login(user)
    return {"IMPALA_REDIS_URL": with_password(server.url(user), server.password(user))}


def ended(program: Program, code: int = 0) -> None:
    assert program.code() == code, program.output
    assert "secret" not in program.output


def no_secret_was_seen(folder: Path, processes: int) -> None:
    files = list(folder.iterdir())
    assert len(files) >= processes
    for file in files:
        content = file.read_bytes()
        assert b"NOSY_SEES" in content  # it has looked
        assert b"secret" not in content


HOW = pytest.mark.parametrize("how", ["by the address", "by a file"])
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@LINUX
@HOW
@pytest.mark.processes
def test_the_environments_of_impala_train_see_no_password(
    programs: Programs, guarded: HardenedServer, seen: Path, how: str
) -> None:
    # when
    train = programs.start(
        *("impala-train", *SMALL, "--run", guarded.run, "--run-dir", "run"),
        cold=True,
        **login(guarded, "learner", how),
    )
    ended(train)

    # then neither the learner's process for the spaces nor the actor has it
    no_secret_was_seen(seen, processes=2)


@LINUX
@HOW
@pytest.mark.processes
def test_the_environments_of_single_programs_see_no_password(
    programs: Programs, guarded: HardenedServer, seen: Path, how: str
) -> None:
    # given a learner and an actor
    run = ("--run", guarded.run)
    learner = programs.start(
        *("impala-learner", *SMALL, *run, "--run-dir", "run"),
        cold=True,
        **login(guarded, "learner", how),
    )
    actor = programs.start(
        *("impala-actor", *run, "--env-module", "nosy"), cold=True, **login(guarded, "actor", how)
    )
    ended(learner)
    actor.send(signal.SIGTERM)
    ended(actor)
    no_secret_was_seen(seen, processes=2)

    # when what they have trained is evaluated
    evaluation = programs.start(
        *("impala-eval", *run, "--env-module", "nosy", "--episodes", "1"),
        cold=True,
        **login(guarded, "monitor", how),
    )

    # then
    ended(evaluation)
    no_secret_was_seen(seen, processes=3)


READER = """
import os
import sys
from impala_redis.workers import credentials

again = (url := credentials.handed_over()) and credentials.handed_over()
os.write(1, repr((url, again, credentials.VARIABLE in os.environ)).encode())
"""


@pytest.mark.parametrize("length", [10, 300_000])
def test_an_address_of_any_length_arrives_once(length: int) -> None:
    # when a program is started and reads it
    url = f"unix:///{'x' * length}\udc80?password=a%20b"
    with credentials.handing_over(url) as descriptor:
        reader = subprocess.Popen(
            [sys.executable, "-c", READER],
            env=os.environ | {credentials.VARIABLE: str(descriptor)},
            pass_fds=[descriptor],
            stdout=subprocess.PIPE,
        )

    # then
    said, _ = reader.communicate(timeout=30)
    assert said.decode() == repr((url, None, False))


def test_a_program_that_ends_before_it_reads_holds_nobody_up() -> None:
    with credentials.handing_over("x" * 300_000):
        pass


@pytest.mark.processes
@pytest.mark.parametrize("descriptor", ["999", "none", "-1", "0", "9" * 30])
def test_a_variable_that_leads_to_no_address_is_refused(
    programs: Programs, descriptor: str
) -> None:
    # when
    variables = {credentials.VARIABLE: descriptor}
    code, output = programs.run("impala-status", "--run", "x", **variables)

    # then
    assert code == 2, output
    assert "IMPALA_REDIS_URL_FD is for what impala-train starts" in output
    assert "Traceback" not in output


def test_another_variable_that_holds_a_secret_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPALA_REDIS_URL", "redis://:hush@localhost/0")
    monkeypatch.setenv("IMPALA_REDIS_URL_2", "another")
    credentials.forget("IMPALA_REDIS_URL")
    credentials.forget("IMPALA_REDIS_URL")
    assert "IMPALA_REDIS_URL" not in os.environ
    assert os.environ["IMPALA_REDIS_URL_2"] == "another"
