"""The system under chaos: a server behind two proxies, actors, a learner, and who restarts them."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import time
from pathlib import Path

from chaos.clusters import OwnSentinels
from chaos.proxy import Proxy
from chaos.servers import DURABLE, OwnServer
from impala_redis.common.transport.keys import Keys
from support import Program, Programs

RUN = "chaos"
MAXMEMORY = "200mb"
QUEUE_BLOCKS = 8
SETTINGS = (
    *("--run", RUN, "--preset", "cartpole", "--envs-per-actor", "16", "--batch-size", "32"),
    *("--queue-blocks", "4"),
    *("--queue-blocks", str(QUEUE_BLOCKS), "--checkpoint-interval-s", "2"),
    *("--total-frames", "1e12", "--log-level", "debug", "--lease-s", "10"),
    # Goes on for long when solved, which at the preset's own rate would end in a collapse.
    *("--learning-rate", "0.0005", "--entropy-cost", "0.01"),
)
# After this a learner that is started again begins a new training.
NEW_TRAINING_S = 240.0
# The name of the one actor that is never killed: its memory is watched from end to end.
STEADY = "steady"
ACTORS = (STEADY, "mortal-a", "mortal-b")


class System:
    """Starts everything, and starts again what a fault has ended; `end` stops it."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        broken: str | None,
        with_sentinels: bool = False,
        queue_policy: str = "drop-oldest",
    ) -> None:
        self.folder, self._seed, self._broken = folder, seed, broken
        self._queue_policy = queue_policy
        self.keys = Keys(RUN)
        options = (*DURABLE, "--maxmemory", MAXMEMORY)
        self.sentinels = OwnSentinels(folder, *options) if with_sentinels else None
        self._server = None if self.sentinels else OwnServer(folder, *options)
        self.to_actors = Proxy(self.server.port, seed)
        self.to_learner = Proxy(self.server.port, seed + 1)
        self._programs = Programs(folder)
        self.trainings = 0
        self._run_dirs = (folder / f"run-{n}" for n in itertools.count())
        self._incarnations = itertools.count()
        self.learners: list[Program] = []  # all that ever were, for the audit of their logs
        self.actors: dict[str, Program] = {}
        self._expected: dict[Program, set[int]] = {}  # ends that are meant, by their codes
        self._buried: set[Program] = set()
        self.surprises: list[str] = []  # ends that were not
        self._begin_training()
        self.learner = self.start_learner()
        for name in ACTORS:
            self._start_actor(name)

    @property
    def server(self) -> OwnServer:
        """The server, or the master of the moment."""
        if self._server is not None:
            return self._server
        assert self.sentinels is not None
        return self.sentinels.master()

    @property
    def url(self) -> str:
        """The server's address, past the proxies."""
        return self.sentinels.url if self.sentinels else self.server.url

    # Starting.

    def start_learner(self, *options: str, goal: str = "none") -> Program:
        """Starts a learner in the run directory; it resumes what is there."""
        script = Path(__file__).parent / "broken.py"
        command = ("python", str(script), self._broken) if self._broken else ("impala-learner",)
        learner = self._programs.start(
            *(*command, *SETTINGS, "--run-dir", str(self.run_dir), "--resume"),
            *("--seed", str(self._seed), "--stop-at-return", goal),
            *("--queue-policy", self._queue_policy, *options),
            IMPALA_REDIS_URL=self.url if self.sentinels else self.to_learner.url,
        )
        self.learners.append(learner)
        return learner

    def take_over(self) -> None:
        """Another learner takes the run from the one at work, from a copy of its checkpoints."""
        copy = next(self._run_dirs)
        (copy / "checkpoints").mkdir(parents=True)
        for path in sorted((self.run_dir / "checkpoints").glob("checkpoint-*")):
            # What is removed or replaced meanwhile makes a checkpoint that is passed over.
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(path, copy / "checkpoints")
        fenced, self.run_dir = self.learner, copy
        self.expect(fenced, 8)
        self.learner = self.start_learner("--take-over")
        fenced.code()

    def start_second_learner(self) -> None:
        """Another learner is started by mistake; it must be refused."""
        at_work, self.run_dir = self.run_dir, next(self._run_dirs)
        # At once: it would rightly take the run if the other were cut off for the lease's time.
        second = self.start_learner("--wait-lease-s", "0")
        self.run_dir = at_work
        self.expect(second, 7)
        second.code()

    def _begin_training(self) -> None:
        self.run_dir = next(self._run_dirs)
        self.trainings += 1
        self._training_since = time.monotonic()

    def _start_actor(self, name: str) -> None:
        # A name of its own each time, as a supervisor would give: others play other episodes.
        actor_id = f"{name}-{next(self._incarnations)}"
        self.actors[name] = self._programs.start(
            *("impala-actor", "--run", RUN, "--actor-id", actor_id),
            IMPALA_REDIS_URL=self.url if self.sentinels else self.to_actors.url,
        )

    # Ending.

    def expect(self, program: Program, *codes: int) -> None:
        """Says that the program will end, with one of these codes."""
        self._expected.setdefault(program, set()).update(codes)

    def kill_actor(self, rng: random.Random, number: signal.Signals) -> None:
        """Ends one of the actors that may be ended."""
        victim = self.actors[rng.choice([name for name in ACTORS if name != STEADY])]
        if number == signal.SIGTERM:
            victim.says("joined", 30)  # before, it may not listen yet
        self.expect(victim, -signal.SIGKILL if number == signal.SIGKILL else 0)
        victim.send(number)

    def kill_learner(self, number: signal.Signals) -> None:
        """Ends the learner, and returns when it has."""
        self.expect(self.learner, -signal.SIGKILL if number == signal.SIGKILL else 130)
        self.learner.send(number)
        self.learner.code()

    def supervise(self) -> None:
        """Starts again what has ended, and notes an end that nobody meant."""
        for name, actor in list(self.actors.items()):
            if self._has_ended(actor):
                self._start_actor(name)
        if self._has_ended(self.learner):
            if time.monotonic() - self._training_since > NEW_TRAINING_S:
                self._begin_training()
            self.learner = self.start_learner()
        for other in self.learners:
            if other is not self.learner:
                self._has_ended(other)

    def _has_ended(self, program: Program) -> bool:
        """Whether it has ended since it was last asked after."""
        code = program.process.poll()
        if code is None or program in self._buried:
            return False
        self._buried.add(program)
        if code not in self._expected.get(program, ()):
            last = program.output.strip().rpartition("\n")[2]
            name = Path(program.name.split()[0]).name
            self.surprises.append(f"{name} ended with {code}: {last}")
        return True

    def finish(self) -> int:
        """Lets the learner go on until CartPole is solved, and ends everything; its exit code."""
        self.kill_learner(signal.SIGTERM)
        self._has_ended(self.learner)
        self.learner = self.start_learner(goal="475")
        self.expect(self.learner, 0)
        return self.learner.code(240)

    def stop_actors(self) -> None:
        """Asks every actor to stop, and waits for it."""
        for actor in self.actors.values():
            self.expect(actor, 0)
            actor.send(signal.SIGTERM)
        for actor in self.actors.values():
            actor.code()
            self._has_ended(actor)

    def end(self) -> None:
        """Ends whatever still runs."""
        if self._server is not None:
            self._server.thaw()
        self._programs.end()
        for proxy in (self.to_actors, self.to_learner):
            proxy.close()
        if self._server is not None:
            self._server.stop()
        if self.sentinels is not None:
            self.sentinels.close()

    @property
    def outputs(self) -> list[tuple[str, str]]:
        """Name and words of every program that ever ran."""
        return [(p.name, p.output) for p in self._programs.started]

    def processes(self) -> dict[str, int]:
        """Process numbers of what lives long enough to be watched."""
        return {
            "server": self.server.pid,
            f"actor {STEADY}": self.actors[STEADY].pid,
            f"learner {self.learner.pid}": self.learner.pid,
            "the proxies and the oracle": os.getpid(),
        }
