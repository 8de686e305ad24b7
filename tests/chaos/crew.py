"""A learner and its actors at one server, and the oracle that every fault is held against."""

import re
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import redis

from impala_redis.common.errors import RedisUnreachable, RunMissing
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import Program, Programs, eventually

# A run that goes on until it is stopped.
# A block is two batches and more, and several wait: most can be on its way when something breaks.
SIZES = ("--envs-per-actor", "64", "--batch-size", "32", "--queue-blocks", "4")
ENDLESS = (
    *("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none"),
    *SIZES,
)
# Once a fault is over, training goes on within this.
PROGRESS_S = 15.0

_HERE = Path(__file__).parent


class Crew:
    """Programs of one run, as a user would start them; `url` may be that of a proxy."""

    def __init__(self, programs: Programs, url: str, run: str, cold: bool = False) -> None:
        self.run, self.keys = run, Keys(run)
        self.folder = programs.folder / "run"
        self.started: list[Program] = []
        self._learners: list[Program] = []
        self.url, self._programs, self._cold = url, programs, cold

    # Programs.

    def learner(self, *options: str, run_dir: str = "run") -> Program:
        """Starts a learner; a resumed one with "--resume"."""
        learner = self._start("impala-learner", *ENDLESS, "--run-dir", run_dir, *options)
        self._learners.append(learner)
        return learner

    def actor(self, *options: str) -> Program:
        """Starts an actor."""
        return self._start("impala-actor", *options)

    def doomed_learner(self, when: str, what: str, number: int, *options: str) -> Program:
        """Starts a learner that kills itself at one instant (see chaos/doomed.py)."""
        program = ("learner", *ENDLESS, "--run-dir", "run", *options)
        return self._start_script("doomed.py", when, what, str(number), *program)

    def doomed_actor(self, when: str, what: str, number: int, *options: str) -> Program:
        """Starts an actor that kills itself at one instant (see chaos/doomed.py)."""
        return self._start_script("doomed.py", when, what, str(number), "actor", *options)

    def skewed(self, program: str, *options: str) -> Program:
        """Starts an actor or a learner whose wall clock leaps about (see chaos/skewed.py)."""
        if program == "actor":
            return self._start_script("skewed.py", program, *options)
        more = (*ENDLESS, "--run-dir", "run")
        learner = self._start_script("skewed.py", program, *more, *options)
        self._learners.append(learner)
        return learner

    def at_work(self, actors: int = 1, *options: str) -> tuple[Program, list[Program]]:
        """A learner with these options and so many actors, all of them at work."""
        learner = self.learner(*options)
        joined = [self.actor() for _ in range(actors)]
        learner.says("first batch is here")
        for actor in joined:
            actor.says("joined")
        return learner, joined

    def status(self) -> tuple[int, str]:
        """What impala-status says of the run, with its exit code."""
        return self._programs.run("impala-status", **self._variables())

    # What can be seen of it.

    def books(self) -> dict[str, Any]:
        """The run's counters, of one instant."""
        link = MonitorLink(self.url, self.run, "test")
        try:
            return link.read_books()
        finally:
            link.close()

    def learner_record(self) -> dict[str, Any]:
        """The lease's holder, the epoch, the published version, and the learner's figures."""
        link = MonitorLink(self.url, self.run, "test")
        try:
            return link.read_learner()
        finally:
            link.close()

    def actor_records(self) -> dict[str, dict[str, str]]:
        """What every live actor last said of itself; nothing before a learner has come."""
        link = MonitorLink(self.url, self.run, "test")
        try:
            return link.read_actors()
        except RunMissing:
            return {}
        finally:
            link.close()

    def client(self) -> redis.Redis:
        """A plain client, as an operator's redis-cli would be."""
        return redis.Redis.from_url(self.url, socket_timeout=20)

    # The oracle.

    def goes_on(self, blocks: int = 20, timeout_s: float = PROGRESS_S) -> None:
        """Waits until so many more blocks are consumed; counting anew if the books are new."""
        start: dict[str, Any] = {}

        def grown() -> bool:
            try:
                now = self.books()
            except (RedisUnreachable, RunMissing):
                return False
            if not start:
                start.update(now)
            if start["generation"] != now["generation"]:
                start.update(now, consumed=0)
            return bool(now["consumed"] >= start["consumed"] + blocks)

        eventually(grown, timeout_s, f"training to go on; {self._last_words()}")

    def balanced(self) -> dict[str, Any]:
        """The books, which must explain every block, and the bound of the list."""
        now = self.books()
        assert residual(now) == 0, now
        return now

    def unharmed(self, *survivors: Program) -> None:
        """No program told of anything that should not happen, and these still run."""
        for program in self.started:
            assert "Traceback" not in program.output, program.output
        for program in survivors:
            assert program.process.poll() is None, program.output

    def ends_well(self) -> dict[str, Any]:
        """Asks every program that runs to stop; exit codes as documented, books balanced."""
        for program in self.started:
            if program.process.poll() is None:
                program.send(signal.SIGTERM)
                expected = 130 if program in self._learners else 0
                assert program.code() == expected, program.output
        self.unharmed()
        return self.balanced()

    def _last_words(self) -> str:
        return "\n".join(f"{p.name}:\n{p.output[-1500:]}" for p in self.started)

    def _start(self, *command: str) -> Program:
        program = self._programs.start(*command, cold=self._cold, **self._variables())
        self.started.append(program)
        return program

    def _start_script(self, script: str, *arguments: str) -> Program:
        return self._start("python", str(_HERE / script), *arguments)

    def _variables(self) -> Mapping[str, str]:
        return {"IMPALA_REDIS_URL": self.url, "IMPALA_RUN": self.run}


def trained(learners: Iterable[Program]) -> list[str]:
    """Each block that was trained on, as actor#incarnation:sequence, in order.

    They must have been started with "--log-level", "debug".
    """
    return [
        identity
        for learner in learners
        for identity in re.findall(r"trained on (\S+#\d+:\d+)", learner.output)
    ]
