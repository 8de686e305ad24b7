"""What impala-train hands to learners that torchrun starts: to each of them once, to no other."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from impala_redis.workers import credentials, handed, voice
from impala_redis.workers.handover import Handover, Rank
from support import Programs

URL = "redis://:hush@localhost/0"

# A learner that asks, asks again, and whose environment asks in a process of its own.
ASKING = """
import os, subprocess, sys
from impala_redis.workers import credentials, handed, voice

def asked():
    try:
        return credentials.handed_over()
    except ValueError as error:
        return str(error)

path = os.environ[handed.VARIABLE]
seen = [asked()]
voice.tell(log="I am rank " + os.environ["RANK"])
seen += [handed.VARIABLE in os.environ, asked()]
os.environ[handed.VARIABLE] = path
seen += [asked()]
if len(sys.argv) < 2:
    seen += [subprocess.check_output([sys.executable, sys.argv[0], "below"], text=True).strip()]
print(seen)
"""


@pytest.fixture
def listener() -> Iterator[voice.Listener]:
    with contextlib.closing(voice.Listener()) as made:
        yield made


@pytest.fixture
def handover(listener: voice.Listener) -> Iterator[Handover]:
    with contextlib.closing(Handover()) as made:
        yield made


def said_by(program: Path, handover: Handover, listener: voice.Listener, parent: int) -> str:
    """What a learner prints that is started by this process, and said to be a child of `parent`."""

    def hand_to(rank: Rank) -> dict[str, int]:
        assert (rank.number, rank.pid) == (0, learner.pid)
        given = {credentials.VARIABLE: credentials.pipe_with(URL)}
        return given | {voice.VARIABLE: os.dup(listener.writing)}

    learner = subprocess.Popen(
        [sys.executable, str(program)],
        env=os.environ | {handed.VARIABLE: str(handover.path), "RANK": "0"},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60.0
    while learner.poll() is None and time.monotonic() < deadline:
        handover.serve(parent, hand_to)
        time.sleep(0.005)
    said, _ = learner.communicate(timeout=1)
    return said.strip()


@pytest.fixture
def asking(tmp_path: Path) -> Path:
    path = tmp_path / "asking.py"
    path.write_text(ASKING)
    return path


REFUSED = "it is not for this program"


@pytest.mark.skipif(sys.platform != "linux", reason="looks whose child a process is")
def test_a_learner_gets_the_address_and_its_voice_once_and_an_environment_nothing(
    asking: Path, handover: Handover, listener: voice.Listener
) -> None:
    # when
    said = said_by(asking, handover, listener, parent=os.getpid())

    # then
    assert listener.hear() == ["I am rank 0"]
    below = repr([REFUSED, True, REFUSED, REFUSED])
    assert said == repr([URL, False, None, REFUSED, below])


@pytest.mark.skipif(sys.platform != "linux", reason="looks whose child a process is")
def test_a_process_that_torchrun_has_not_started_gets_nothing(
    asking: Path, handover: Handover, listener: voice.Listener
) -> None:
    said = said_by(asking, handover, listener, parent=1)
    assert URL not in said
    assert said.count(REFUSED) == 6
    assert listener.hear() == []


def test_the_socket_is_for_its_user_alone_and_goes_with_impala_train(handover: Handover) -> None:
    folder = handover.path.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    handover.close()
    assert not folder.exists()


@pytest.mark.processes
def test_a_learner_that_finds_no_impala_train_ends_and_takes_no_other_server(
    programs: Programs,
) -> None:
    # when
    variables = {handed.VARIABLE: str(programs.folder / "gone"), "RANK": "0"}
    code, output = programs.run("impala-status", "--run", "x", **variables)

    # then
    assert code == 2, output
    assert "IMPALA_HANDOVER_SOCKET is for what impala-train starts, and nobody answers" in output
