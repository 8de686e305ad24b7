"""Row 58 of the fault matrix: what listens at the server's address is no Redis, or is hostile."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import PATIENCE_S, Program, Programs

MOST_MB = 700  # of any program; the half-gigabyte that a reply announces comes on top of it

COMMANDS = {
    "learner": ("impala-learner", "--preset", "cartpole", "--run-dir", "run"),
    "actor": ("impala-actor", "--run", "cartpole"),
    "status": ("impala-status", "--run", "cartpole"),
    "eval": ("impala-eval", "--run", "cartpole"),
    "train": ("impala-train", "--preset", "cartpole", "--run-dir", "run"),
}
REPLIES = {
    "lists in lists": b"*1\r\n" * 5000,
    "half a gigabyte": b"*1\r\n$536870911\r\n",
    "two thousand million items": b"*2000000000\r\n",
    "a line without an end": b"+" + b"x" * 100_000,
    "numbers for all": b":1\r\n",
    "nothing for all": b"$-1\r\n",
    "OK to all": b"+OK\r\n",
    "a web server": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "a push of RESP3": b">1\r\n$1\r\nx\r\n",
}


class Hostile:
    """A server that answers every command after the greeting in the same way."""

    def __init__(self, answer: Callable[[socket.socket], object]) -> None:
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        self.was_asked = threading.Event()
        self.closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            while asked := peer.recv(65_536):
                if b"SETNAME" in asked:
                    peer.sendall(b"+OK\r\n")
                    continue
                self.was_asked.set()
                for _ in range(max(1, asked.count(b"\r\n*") + 1)):
                    self._answer(peer)

    def close(self) -> None:
        self.closing.set()
        self._listening.close()


@contextlib.contextmanager
def hostile(answer: Callable[[socket.socket], object]) -> Iterator[Hostile]:
    """One of them, while the `with` lasts."""
    made = Hostile(answer)
    try:
        yield made
    finally:
        made.close()


def peak_mb(program: Program) -> float:
    """The most memory that a program has had so far."""
    for line in Path(f"/proc/{program.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


FAST = [("status", name) for name in REPLIES] + [
    (program, "lists in lists") for program in COMMANDS if program != "status"
]


@pytest.mark.processes
@pytest.mark.fault(58)
@pytest.mark.parametrize(
    ("program", "reply"),
    [
        pytest.param(p, r, marks=[] if (p, r) in FAST else [pytest.mark.full])
        for p in COMMANDS
        for r in REPLIES
    ],
)
def test_a_server_that_is_none_ends_a_program_in_one_sentence(
    programs: Programs, program: str, reply: str
) -> None:
    # given
    with hostile(lambda peer: peer.sendall(REPLIES[reply])) as server:
        # when a program is sent there
        started = programs.start(*COMMANDS[program], IMPALA_REDIS_URL=server.url)
        code = started.code()

    # then it has ended by itself, with a code that the reference names and one sentence; where
    # something may still come, there was no answer in time
    if reply == "half a gigabyte" and code == 4:
        assert "no answer from Redis at" in started.output
    else:
        assert code == 6, started.output
        assert "answered with what is no reply of Redis" in started.output
    assert started.output.count("error: ") == 1
    assert "Traceback" not in started.output


@pytest.mark.processes
@pytest.mark.fault(58)
@pytest.mark.parametrize(
    "program",
    [
        "status",
        "actor",
        *(pytest.param(p, marks=pytest.mark.full) for p in ("eval", "learner", "train")),
    ],
)
def test_a_program_that_reads_a_reply_without_an_end_ends_when_it_is_asked_to(
    programs: Programs, program: str
) -> None:
    # given a server whose reply goes on, byte by byte
    def drip(peer: socket.socket) -> None:
        peer.sendall(b"$100000\r\n")
        while not server.closing.wait(0.2):
            peer.sendall(b"x")

    with hostile(drip) as server:
        started = programs.start(*COMMANDS[program], IMPALA_REDIS_URL=server.url)
        assert server.was_asked.wait(PATIENCE_S)

        # when the program that waits for it is asked to end
        time.sleep(0.5)
        assert started.process.poll() is None, started.output
        started.send(signal.SIGTERM)

        # then it ends in time, and says nothing that is not so
        assert started.code(15.0) in (0, 130), started.output
        assert "Traceback" not in started.output


@pytest.mark.processes
@pytest.mark.fault(58)
def test_a_message_that_is_announced_and_never_comes_takes_no_memory(programs: Programs) -> None:
    # given a server that announces half a gigabyte to whoever asks for a run's spec
    with hostile(lambda peer: peer.sendall(b"*3\r\n$536870911\r\n" + bytes(100))) as server:
        started = programs.start(*COMMANDS["status"], IMPALA_REDIS_URL=server.url)
        assert server.was_asked.wait(PATIENCE_S)

        # then the program that waits for it stays as small as it was
        time.sleep(1.0)
        assert started.process.poll() is None, started.output
        assert peak_mb(started) < 200
        assert started.code() == 4, started.output
