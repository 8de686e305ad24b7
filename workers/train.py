"""impala-train: server, learner and actors on one machine, by one command.

It has one thread and several processes, and leaves none behind:

    impala-train   reads the run directory and shows progress, replaces lost actors,
                   and in the end stops the learner, the actors and the server
      server       Redis, unless --redis-url names one
      learner      impala-learner; the run is over when it ends
      actor-0 ...  impala-actor; a lost actor-0 is replaced by actor-0.1
      report       impala-report at the end, with --report
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from impala_redis.common.errors import (
    EXIT_INTERRUPTED,
    EXIT_LEARNER_KILLED,
    ActorsLost,
    ServerNotStarted,
)
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.spec import module_of
from impala_redis.common.server import children
from impala_redis.common.server.connection import connect, translated
from impala_redis.common.server.embedded import EmbeddedServer
from impala_redis.workers import pacing, process, stopping
from impala_redis.workers.options import (
    CONTEXT,
    GroupedCommand,
    as_arguments,
    every_setting,
    option,
    redis_options,
    shared,
)
from impala_redis.workers.plan import Plan, make_plan
from impala_redis.workers.progress import Progress

log = logging.getLogger(__name__)

DEFAULT_PRESET = "cartpole"
POLL_S = 0.05
# Time for the learner to commit, save and write its result when it is asked to stop.
LEARNER_GRACE_S = 20.0
ACTOR_GRACE_S = 5.0
# The first report on a machine may have to look for its fonts.
REPORT_WITHIN_S = 60.0
# Actors that end by themselves are replaced, at most this often within this time.
ACTOR_RESTARTS = 5
RESTARTS_WITHIN_S = 60.0


@click.command(cls=GroupedCommand, context_settings=CONTEXT)
@redis_options(None, "a server of its own", "Use this server instead of starting one: ")
@shared("run", "run-dir", "preset", "config", "device", "threads", "resume", "take-over")
@option(
    "report",
    off="no-report",
    default=False,
    help="Write report.html into the run directory at the end, unless interrupted.",
)
@shared("log-level")
@every_setting
def main(
    redis_url: str | None,
    run: str | None,
    run_dir: Path | None,
    preset: str | None,
    config_file: Path | None,
    device: str,
    threads: int,
    resume: bool,
    take_over: bool,
    report: bool,
    log_level: str,
    overrides: dict[str, Any],
) -> None:
    """Trains on this machine: a Redis server, a learner and actors, from one command.

    Without --preset, --env or --config it trains CartPole-v1.
    """
    stopping.set_up_logging(log_level, "train")
    stop = stopping.StopFlag()
    with stopping.exit_codes(stop):
        plan = make_plan(
            run=run,
            run_dir=run_dir,
            preset_name=preset,
            config_file=config_file,
            resume=resume,
            overrides=overrides,
            default_preset=DEFAULT_PRESET,
        )
        plan.directory.prepare("train", resume)
        options = ["--device", device, "--threads", str(threads), "--log-level", log_level]
        options += ["--preset", plan.preset] if plan.preset else []
        options += ["--resume"] if resume else []
        options += ["--take-over"] if take_over else []
        with _server(redis_url, plan.directory) as server:
            progress = Progress(plan.directory, plan.config)
            progress.introduce(plan.run, server.public_url)
            with Crew(plan, server.url, options) as crew:
                code = _watch(crew, server, progress, stop)
        progress.conclude(code, crew.last_words(code))
        if report and code == 0 and not stop():
            page = write_report(plan.directory, stop)
            if page is not None:
                progress.say(f"report:        {page}")
        raise SystemExit(code)


def write_report(directory: RunDirectory, stop: stopping.StopFlag) -> Path | None:
    """Writes the run's page; None, with a line in the log, when that fails or is interrupted."""
    page, log_file = directory.path / "report.html", directory.path / "logs" / "report.log"
    log_file.unlink(missing_ok=True)
    process = children.spawn(
        _program("report", str(directory.path), "--output", str(page)),
        log_file=log_file,
        death_signal=signal.SIGTERM,
    )
    deadline = time.monotonic() + REPORT_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline and not stop.wait(POLL_S):
        pass
    if process.poll() is None:
        children.end(process, 0.0)
        why = "interrupted" if stop() else f"it took more than {REPORT_WITHIN_S:.0f} s"
        log.warning(
            "no report was written: %s; write it with: impala-report %s", why, directory.path
        )
        return None
    if code := process.returncode:
        words = log_file.read_text(encoding="utf-8", errors="replace").strip()
        last = words.splitlines()[-1].removeprefix("error: ") if words else f"it ended with {code}"
        log.warning("no report was written: %s", last)
        return None
    return page


def _program(name: str, *options: str) -> list[str]:
    # -P: modules in the working directory must not be taken for ours.
    return [sys.executable, "-P", "-m", f"impala_redis.workers.{name}", *options]


def _watch(crew: "Crew", server: "Server", progress: Progress, stop: stopping.StopFlag) -> int:
    """Shows progress until the learner ends; returns its exit code."""
    with progress:
        while crew.learner_code() is None:
            if stop.wait(POLL_S):
                progress.say("stopping: the learner saves a checkpoint (Ctrl-C again ends at once)")
                return crew.stop_learner()
            server.check()
            crew.replace_lost_actors()
            progress.update()
    return crew.stop_learner()


class Crew:
    """The learner and the actors of this machine; leaving the `with` ends them in order."""

    def __init__(self, plan: Plan, redis_url: str, learner_options: list[str]) -> None:
        self._run, self._directory = plan.run, plan.directory
        # In the environment: an address may hold a password, and everyone can read arguments.
        self._environment = os.environ | {
            "IMPALA_REDIS_URL": redis_url,
            "IMPALA_ENV_MODULE": module_of(plan.config.environment.env),
            process.STARTED_AT_VARIABLE: str(process.started_at_unix_s()),
        }
        self._logs = plan.directory.path / "logs"
        self._logs.mkdir(exist_ok=True)
        self._log_starts: dict[str, int] = {}  # bytes of earlier sessions
        self._restarts = pacing.Budget(ACTOR_RESTARTS, RESTARTS_WITHIN_S)
        self._learner = self._spawn(
            "learner",
            "learner",
            *("--run", plan.run, "--run-dir", str(plan.directory.path)),
            *learner_options,
            *as_arguments(plan.config),
        )
        self._actors = {
            name: self._spawn_actor(name)
            for name in (f"actor-{i}" for i in range(plan.config.environment.num_actors))
        }

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_learner()
        for actor in self._actors.values():
            actor.terminate()
        for actor in self._actors.values():
            children.end(actor, ACTOR_GRACE_S)

    def learner_code(self) -> int | None:
        """The learner's exit code, None while it runs."""
        return self._learner.poll()

    def stop_learner(self) -> int:
        """Ends the learner if it runs; returns its exit code."""
        asked = self._learner.poll() is None
        code = children.end(self._learner, LEARNER_GRACE_S)
        if code < 0:
            return EXIT_INTERRUPTED if asked else EXIT_LEARNER_KILLED
        return code

    def replace_lost_actors(self) -> None:
        """Replaces actors that ended by themselves. Raises ActorsLost: they keep ending."""
        for name, actor in list(self._actors.items()):
            code = actor.poll()
            if code is None:
                continue
            why = self._last_error(name)
            if not self._restarts.spend():
                raise ActorsLost(f"the actors keep ending ({code}): {why}")
            # With a new name: the same one would play the same episodes again.
            root, _, count = name.partition(".")
            successor = f"{root}.{int(count or 0) + 1}"
            log.warning("%s ended (%d): %s; %s takes its place", name, code, why, successor)
            del self._actors[name]
            self._actors[successor] = self._spawn_actor(successor)

    def last_words(self, code: int) -> str | None:
        """The learner's own words about its failure; None if it did not fail."""
        if code in (0, EXIT_INTERRUPTED):
            return None
        if code == EXIT_LEARNER_KILLED:
            return (
                f"the learner was killed; continue with --resume --run-dir {self._directory.path}"
            )
        return self._last_error("learner")

    def _spawn_actor(self, name: str) -> subprocess.Popen[bytes]:
        return self._spawn(name, "actor", "--run", self._run, "--actor-id", name)

    def _spawn(self, log_name: str, program: str, *options: str) -> subprocess.Popen[bytes]:
        log_file = self._logs / f"{log_name}.log"
        self._log_starts[log_name] = log_file.stat().st_size if log_file.exists() else 0
        return children.spawn(
            _program(program, *options),
            log_file=log_file,
            death_signal=signal.SIGTERM,
            environment=self._environment,
        )

    def _last_error(self, log_name: str) -> str:
        path = self._logs / f"{log_name}.log"
        words = path.read_bytes()[self._log_starts[log_name] :].decode(errors="replace")
        for line in reversed(words.splitlines()):
            if line.startswith("error: ") or "Error" in line:
                return line.removeprefix("error: ")
        return f"see {path}"


class Server(NamedTuple):
    """Where Redis is: the address for our programs, and the one that is shown."""

    url: str
    public_url: str
    embedded: EmbeddedServer | None

    def check(self) -> None:
        """Raises ServerNotStarted when our own server has ended."""
        if self.embedded is not None and not self.embedded.alive:
            raise ServerNotStarted(
                f"the embedded server ended; its words are in {self.embedded.log}; continue "
                f"with --resume --run-dir {self.embedded.log.parent}"
            )


@contextlib.contextmanager
def _server(redis_url: str | None, directory: RunDirectory) -> Iterator[Server]:
    """The given server, or our own while the `with` lasts."""
    if redis_url is None:
        with EmbeddedServer(directory.path) as embedded:
            yield Server(embedded.url, embedded.tcp_url, embedded)
        return
    client = connect(redis_url, "impala-train")
    with translated(redis_url):
        client.ping()
    client.close()
    yield Server(redis_url, redis_url, None)


if __name__ == "__main__":
    main()
