"""impala-train: server, learner and actors on one machine, by one command.

It has one thread and several processes, and leaves none behind:

    impala-train   reads the run directory and shows progress, replaces lost actors,
                   and in the end stops the learner, the actors and the server
      server       Redis, unless --redis-url names one
      learner      impala-learner; the run is over when it ends. With --learners: torchrun,
                   which runs several
      actor-0 ...  impala-actor; a lost actor-0 is replaced by actor-0.1
      report       impala-report at the end, with --report
"""

import contextlib
import logging
import os
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from impala_redis.common.errors import ServerNotStarted
from impala_redis.common.local import children
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.transport.link import Link
from impala_redis.workers import pacing, programs, stopping, voice
from impala_redis.workers.actor_options import options_for_actors
from impala_redis.workers.command import Amount
from impala_redis.workers.crew import Crew
from impala_redis.workers.options import CONTEXT, option, redis_options, shared
from impala_redis.workers.plan import Plan, make_plan
from impala_redis.workers.setting_options import GroupedCommand, every_setting
from impala_redis.workers.stopping import StopFlag
from impala_redis.workers.terms import Terms, terms_options
from impala_redis.workers.torchrun import check_learners

if TYPE_CHECKING:
    from impala_redis.workers.progress import Progress

log = logging.getLogger(__name__)

DEFAULT_PRESET = "cartpole"
POLL_S = 0.05
# The first report on a machine may have to look for its fonts.
REPORT_WITHIN_S = 60.0


@click.command(cls=GroupedCommand, context_settings=CONTEXT)
@redis_options(None, "a server of its own", "Use this server instead of starting one: ")
@option(
    "embedded-port",
    type=click.IntRange(1, 65535),
    help="Have the server of its own listen on this port of this machine, too, with a password in "
    "a file that is named at the start. Without it only your user reaches the server.",
)
@shared("run", "run-dir", "preset", "config", "engine", "device", "threads", "resume")
@shared("init-from")
@terms_options
@option(
    "learners",
    type=click.IntRange(min=1),
    default=1,
    help="Learners of this machine that share each batch of the run, by torchrun: one for each "
    "GPU. --batch-size must be a multiple.",
)
@option(
    "report",
    off="no-report",
    default=False,
    help="Write report.html into the run directory at the end, unless interrupted.",
)
@options_for_actors
@option(
    "wait-redis-s",
    type=Amount(min=0),
    show_default="0, and 30 for learner and actors",
    help="Seconds to wait at the start for a server that does not answer.",
)
@shared("log-level")
@every_setting
def main(
    redis_url: str | None,
    embedded_port: int | None,
    run: str | None,
    run_dir: Path | None,
    preset: str | None,
    config_file: Path | None,
    engine: str,
    device: str,
    threads: int,
    resume: bool,
    init_from: str | None,
    terms: Terms,
    learners: int,
    report: bool,
    wait_redis_s: float | None,
    log_level: str,
    actor_arguments: list[str],
    overrides: dict[str, Any],
) -> None:
    """Trains on this machine: a Redis server, a learner and actors, from one command.

    Without --preset, --env or --config it trains CartPole-v1.
    """
    _want_one_server(redis_url, embedded_port, terms)
    stopping.set_up_logging(log_level, "train")
    with stopping.exit_codes(stop := StopFlag()):
        plan = make_plan(
            run=run,
            run_dir=run_dir,
            preset_name=preset,
            config_file=config_file,
            resume=resume,
            overrides=overrides,
            default_preset=DEFAULT_PRESET,
            init_from=init_from,
        )
        check_learners(learners, engine, plan.config.training.batch_size)
        plan.directory.prepare("train", resume)
        options = [*_given(engine=engine, device=device, threads=threads), *terms.as_arguments()]
        options += [*["--resume"] * resume, *_given(log_level=log_level, wait_redis_s=wait_redis_s)]
        with (
            _server(redis_url, embedded_port, plan, wait_redis_s or 0.0, stop) as server,
            _crew(plan, server, options, actor_arguments, learners, stop) as crew,
        ):
            progress = _introduced(plan, server, learners)
            code = _watch(crew, server, progress, stop)
        progress.conclude(code, crew.last_words(code), crew.result)
        _report(plan, progress, stop, wanted=report and code == 0)
        raise SystemExit(code)


def _report(plan: Plan, progress: "Progress", stop: StopFlag, wanted: bool) -> None:
    if wanted and not stop() and (page := write_report(plan.directory, stop)):
        progress.say(f"report:        {page}")


def _given(**values: Any) -> list[str]:
    """Options with their values as one types them, without those that have none."""
    return [
        text
        for name, value in values.items()
        if value is not None
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]


def write_report(directory: RunDirectory, stop: StopFlag) -> Path | None:
    """Writes the run's page; None, with a line in the log, when that fails or is interrupted."""
    page, log_file = directory.path / "report.html", directory.path / "logs" / "report.log"
    with contextlib.closing(voice.Listener()) as listener:
        try:
            log_file.unlink(missing_ok=True)
            process = children.spawn(
                programs.command("report", str(directory.path), "--output", str(page)),
                log_file=log_file,
                death_signal=signal.SIGTERM,
                environment=os.environ | {voice.VARIABLE: str(listener.writing)},
                pass_fds=[listener.writing],
            )
        except OSError as error:
            log.warning("no report was written: %s", error)
            return None
        deadline = time.monotonic() + REPORT_WITHIN_S
        while process.poll() is None and time.monotonic() < deadline and not stop.wait(POLL_S):
            pass
        if process.poll() is None:
            children.end(process, 0.0)
            why = "interrupted" if stop() else f"it took more than {REPORT_WITHIN_S:.0f} s"
            log.warning(
                "no report was written: %s; write it with: impala-report %s",
                *(why, shlex.quote(str(directory.path))),
            )
            return None
        listener.hear()
    if code := process.returncode:
        log.warning("no report was written: %s", listener.error or f"it ended with {code}")
        return None
    return page


def _load_the_learner() -> None:
    """Imports what the learner needs, which takes longer than a server's start."""
    programs.load("learner")


def _crew(
    plan: Plan,
    server: "Server",
    options: list[str],
    actor_options: list[str],
    learners: int,
    stop: StopFlag,
) -> Crew:
    """The learners and the actors, which a second Ctrl-C ends from now on."""
    options = options + _given(preset=plan.preset, init_from=plan.init_from)
    with stop.without_thread():
        crew = Crew(plan, server.url, options, actor_options, learners)
    stop.before_end_at_once = lambda: server.kill_with(crew)
    return crew


def _introduced(plan: Plan, server: "Server", learners: int) -> "Progress":
    """The view of the run, which has said what runs and how to look at it."""
    # Late: learner and actors begin while rich is imported.
    from impala_redis.workers.progress import Progress

    progress = Progress(plan.directory, plan.config, learners)
    progress.introduce(plan.run, server.public_url, server.password_file)
    return progress


def _watch(crew: Crew, server: "Server", progress: "Progress", stop: StopFlag) -> int:
    """Shows progress and news until the learner ends; returns its exit code."""
    with progress:
        while crew.learner_code() is None:
            if stop():
                progress.say("stopping: the learner saves a checkpoint (Ctrl-C again ends at once)")
                break
            server.check()
            crew.look_after_actors()
            progress.update()
            progress.say_all(crew.news())
            crew.wait_for_learner(POLL_S)
        code = crew.stop_learner()
    progress.say_all(crew.news())
    return code


def _want_one_server(redis_url: str | None, embedded_port: int | None, terms: Terms) -> None:
    """Raises click.UsageError for a port of our own server and the address of another."""
    terms.check_server(is_own=redis_url is None and embedded_port is None)
    if embedded_port is not None and redis_url is not None:
        raise click.UsageError(
            "--embedded-port is for a server of impala-train's own, and --redis-url names another: "
            "leave one of them out"
        )


class Server(NamedTuple):
    """Where Redis is: the address for our programs, and the one that is shown."""

    url: str
    public_url: str
    embedded: EmbeddedServer | None

    @property
    def password_file(self) -> Path | None:
        """Where the password of our own server is, if it has one."""
        return self.embedded.password_file if self.embedded is not None else None

    def check(self) -> None:
        """Raises ServerNotStarted when our own server has ended."""
        if self.embedded is not None and not self.embedded.alive:
            raise ServerNotStarted(
                f"the embedded server ended; its words are in {self.embedded.log}; continue "
                f"with --resume --run-dir {shlex.quote(str(self.embedded.log.parent))}"
            )

    def kill_with(self, crew: Crew) -> None:
        """Ends the crew, or a learner that hangs would stay, and our own server at once."""
        crew.kill()
        if self.embedded is not None:
            self.embedded.kill()


@contextlib.contextmanager
def _server(
    redis_url: str | None,
    embedded_port: int | None,
    plan: Plan,
    wait_redis_s: float,
    stop: StopFlag,
) -> Iterator[Server]:
    """The given server, or our own while the `with` lasts."""
    if redis_url is None:
        with EmbeddedServer(plan.directory.path, embedded_port, _load_the_learner) as embedded:
            yield Server(embedded.url, embedded.public_url, embedded)
        return
    link = Link(redis_url, plan.run, "train")

    def require() -> None:
        link.require("impala-learner", "impala-actor")  # both will be this user

    pacing.wait_for_redis(require, redis_url, wait_redis_s, stop)
    link.close()
    _load_the_learner()
    # Sentinels are asked again by whoever types what is shown.
    shown = redis_url if link.client.given.master else link.url
    yield Server(redis_url, shown, None)


if __name__ == "__main__":
    main()
