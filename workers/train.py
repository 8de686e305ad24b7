"""impala-train: the whole thing on one machine, by one command.

Starts a server (unless --redis-url names one), a learner and actors as processes of their own,
shows progress, and stops when the learner is done. It leaves no process behind.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from common import children
from common.connection import connect, translated, without_password
from common.errors import EXIT_INTERRUPTED, EXIT_LEARNER_KILLED, ActorsLost
from common.rundir import RunDirectory
from common.server import EmbeddedServer
from workers import runtime
from workers.options import GroupedCommand, as_arguments, every_setting, shared
from workers.plan import Plan, make_plan
from workers.progress import Progress

log = logging.getLogger(__name__)

DEFAULT_PRESET = "cartpole"
POLL_S = 0.05
# The learner commits, saves and writes its result in this time when it is asked to stop.
LEARNER_GRACE_S = 20.0
ACTOR_GRACE_S = 5.0
# An actor that ends by itself is started again, this often in a run.
ACTOR_RESTARTS = 5


@click.command(cls=GroupedCommand, context_settings=runtime.CONTEXT)
@click.option(
    "--redis-url",
    "--redis_url",
    show_envvar=True,
    show_default="a server of its own",
    help="Use this server instead of starting one.",
)
@shared("run", "run-dir", "preset", "config", "device", "threads", "resume", "log-level")
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
    log_level: str,
    overrides: dict[str, Any],
) -> None:
    """Trains on this machine: a Redis server, a learner and actors, from one command.

    Without --preset, --env or --config it trains CartPole-v1.
    """
    runtime.set_up_logging(log_level, "train")
    stop = runtime.StopFlag()
    with runtime.exit_codes(stop):
        plan = make_plan(
            run=run,
            run_dir=run_dir,
            preset_name=preset,
            config_file=config_file,
            resume=resume,
            overrides=overrides,
            default_preset=DEFAULT_PRESET,
        )
        plan.directory.prepare(resume)
        options = ["--device", device, "--threads", str(threads), "--log-level", log_level]
        options += ["--preset", plan.preset] if plan.preset else []
        options += ["--resume"] if resume else []
        with _server(redis_url, plan.directory) as (url, public_url):
            progress = Progress(plan.directory, plan.config)
            progress.introduce(plan.run, public_url)
            with Crew(plan, url, options) as crew:
                code = _watch(crew, progress, stop)
        progress.conclude(code, crew.last_words(code))
        raise SystemExit(code)


def _watch(crew: "Crew", progress: Progress, stop: runtime.StopFlag) -> int:
    """Shows progress until the learner ends; returns its exit code."""
    with progress:
        while crew.learner_code() is None:
            if stop.wait(POLL_S):
                return crew.stop_learner()
            crew.replace_lost_actors()
            progress.update()
    return crew.stop_learner()


class Crew:
    """The learner and the actors of this machine; leaving the `with` ends them in order."""

    def __init__(self, plan: Plan, redis_url: str, learner_options: list[str]) -> None:
        self._run, self._directory = plan.run, plan.directory
        # By the environment: an address may hold a password, and arguments are public.
        self._environment = os.environ | {
            "IMPALA_REDIS_URL": redis_url,
            runtime.STARTED_AT_VARIABLE: str(runtime.started_at_unix_s()),
        }
        self._logs = plan.directory.path / "logs"
        self._logs.mkdir(exist_ok=True)
        self._restarts_left = ACTOR_RESTARTS
        self._learner = self._spawn(
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
        code = children.end(self._learner, LEARNER_GRACE_S)
        return EXIT_LEARNER_KILLED if code < 0 else code

    def replace_lost_actors(self) -> None:
        """Starts actors anew that ended by themselves. Raises ActorsLost when that is no use."""
        for name, actor in self._actors.items():
            code = actor.poll()
            if code is None:
                continue
            if self._restarts_left == 0:
                raise ActorsLost(f"actors keep ending ({code}): {self._last_error(name)}")
            self._restarts_left -= 1
            log.warning("%s ended (%d): %s; starting it again", name, code, self._last_error(name))
            self._actors[name] = self._spawn_actor(name)

    def last_words(self, code: int) -> str | None:
        """What the learner said of its failure, None when it did not fail."""
        if code in (0, EXIT_INTERRUPTED):
            return None
        if code == EXIT_LEARNER_KILLED:
            return (
                f"the learner was killed; continue with --resume --run-dir {self._directory.path}"
            )
        return self._last_error("learner")

    def _spawn_actor(self, name: str) -> subprocess.Popen[bytes]:
        return self._spawn("actor", "--run", self._run, "--actor-id", name, log_name=name)

    def _spawn(
        self, program: str, *options: str, log_name: str | None = None
    ) -> subprocess.Popen[bytes]:
        return children.spawn(
            [sys.executable, "-m", f"workers.{program}", *options],
            log_file=self._logs / f"{log_name or program}.log",
            death_signal=signal.SIGTERM,
            environment=self._environment,
        )

    def _last_error(self, log_name: str) -> str:
        path = self._logs / f"{log_name}.log"
        for line in reversed(path.read_text(errors="replace").splitlines()):
            if line.startswith("error: ") or "Error" in line:
                return line.removeprefix("error: ")
        return f"see {path}"


@contextlib.contextmanager
def _server(redis_url: str | None, directory: RunDirectory) -> Iterator[tuple[str, str]]:
    """The address for our programs, and the one to show: of the given server or of our own."""
    if redis_url is None:
        with EmbeddedServer(directory.path) as server:
            yield server.url, server.tcp_url
        return
    client = connect(redis_url, "impala-train")
    with translated(redis_url):
        client.ping()
    client.close()
    yield redis_url, without_password(redis_url)


if __name__ == "__main__":
    main()
