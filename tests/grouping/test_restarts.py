"""Groups that torchrun has started meet again after a kill -9, whoever of them was killed.

torchrun keeps one store over all attempts, with the addresses of the dead in it, and two of them
count their restarts each by itself: nothing but real restarts finds out whether learners meet.
Most of the time here goes into importing torch, once for every learner of every attempt.
"""

import os
import signal
from pathlib import Path

import pytest

from chaos.servers import free_port
from support import BIN, Program, Programs, eventually

MEMBER = Path(__file__).with_name("member.py")
pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


class Launched:
    """A group of two that torchrun has started, or two of them, and what its learners write."""

    def __init__(self, programs: Programs, folder: Path, *launches: tuple[str, ...]) -> None:
        self.folder = folder
        command = ("--no-python", "--", str(BIN / "python"), str(MEMBER), str(folder))
        self.launchers: list[Program] = [
            programs.start(
                "torchrun", *launch, "--max-restarts", "3", *command, OMP_NUM_THREADS="1"
            )
            for launch in launches
        ]

    def met(self, attempt: int) -> list[tuple[int, int]]:
        """Waits until both take part; the process number and restart count of each."""
        marks = [self.folder / f"{attempt}.{rank}" for rank in range(2)]

        def both() -> bool:
            output = "".join(launcher.output for launcher in self.launchers)
            assert all(one.process.poll() is None for one in self.launchers), output
            return all(mark.exists() for mark in marks)

        eventually(both, what=f"attempt {attempt}")
        pairs = [mark.read_text().split() for mark in marks]
        return [(int(pid), int(restarts)) for pid, restarts in pairs]

    def says(self, text: str) -> None:
        """Waits until one of the launchers has said so."""
        eventually(lambda: any(text in one.output for one in self.launchers), what=text)

    def end(self) -> None:
        """Lets the learners end, each of them well."""
        (self.folder / "end").touch()
        for launcher in self.launchers:
            assert launcher.code() == 0, launcher.output


@pytest.mark.full  # for each change the two below do it
def test_a_group_meets_again_after_the_death_of_rank_0(programs: Programs, tmp_path: Path) -> None:
    # given
    group = Launched(programs, tmp_path, ("--standalone", "--nproc-per-node", "2"))
    (victim, _), _ = group.met(1)

    # when
    os.kill(victim, signal.SIGKILL)

    # then
    assert [restarts for _, restarts in group.met(2)] == [1, 1]
    group.end()


def test_two_machines_meet_again_though_they_count_their_restarts_differently(
    programs: Programs, tmp_path: Path
) -> None:
    # given two machines that are one
    place = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}")
    machine = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "group", *place)
    group = Launched(programs, tmp_path, machine, machine)

    # when a learner dies, and its machine begins anew before the other learner has noticed
    (frozen, _), (victim, _) = group.met(1)
    os.kill(frozen, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    group.says(f"Sending process {frozen} closing signal SIGTERM")
    os.kill(frozen, signal.SIGCONT)

    # then the other machine begins anew too, which it does not count as a failure of its own
    assert [restarts for _, restarts in group.met(2)] == [0, 1]
    group.end()
