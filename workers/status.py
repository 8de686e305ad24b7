"""impala-status: a run at a glance, read from Redis: what limits it, queue, rates, lag, actors."""

import logging
import os
import sys

import click

from impala_redis.common.errors import ConfigError
from impala_redis.common.transport.monitor import MonitorLink
from impala_redis.common.transport.situation import RunStatus, summary
from impala_redis.workers import process, saying, stopping
from impala_redis.workers.command import Program
from impala_redis.workers.deleting import may_delete
from impala_redis.workers.options import CONTEXT, option, shared
from impala_redis.workers.overview import as_text, rows
from impala_redis.workers.plan import run_name
from impala_redis.workers.population_table import may_show_population
from impala_redis.workers.watching import SAMPLE_S, Trouble, Watcher

log = logging.getLogger(__name__)


@click.command(cls=Program, context_settings=CONTEXT)
@shared("redis-url", "that-run")
@option("preset", help="The preset that the run is named after, instead of --run.")
@click.option(
    "--watch", is_flag=True, show_envvar=True, help="Show it again every second until Ctrl-C."
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="IMPALA_JSON",
    show_envvar=True,
    help="Print one JSON object (a line each second).",
)
@shared("log-level")
@may_show_population
@may_delete
def main(
    redis_url: str, run: str | None, preset: str | None, watch: bool, as_json: bool, log_level: str
) -> None:
    """Shows how a run is doing, and what limits it."""
    stopping.set_up_logging(log_level, "status")
    stop = stopping.StopFlag()
    stop.end_within_s = stopping.END_WITHIN_S
    with stopping.exit_codes(stop):
        if not (run or preset):
            raise ConfigError("which run? give --run NAME")
        name = run_name(run, preset)
        link = MonitorLink(redis_url, name, "status", process.is_dead_here)
        link.require("impala-status")
        first = link.read()
        if not watch:
            stop.wait(SAMPLE_S)
            echo(link.run, summary([first, link.read()]), as_json)
            link.close()
        elif as_json or not _can_redraw():
            as_lines(Watcher(link, first), as_json, stop)
        else:
            on_a_screen(Watcher(link, first), stop)


def _can_redraw() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def echo(run: str, status: RunStatus, as_json: bool) -> None:
    """Prints a status: as text, or as one line of JSON."""
    if as_json:
        saying.say_json(status)
    else:
        saying.say(as_text(run, status))


def as_lines(watcher: Watcher, as_json: bool, stop: stopping.StopFlag) -> None:
    """Prints each status below the last one until `stop`, and logs each trouble once."""
    printed, logged = watcher.status, None  # the first status has no rates, so it is not printed

    def show(status: RunStatus, trouble: Trouble | None) -> None:
        nonlocal printed, logged
        if trouble and trouble.what != logged:
            log.warning("%s; going on when it is back", trouble)
        logged = trouble.what if trouble else None
        if status is not printed:
            echo(watcher.run, status, as_json)
        printed = status

    watcher.watch(show, stop)


def on_a_screen(watcher: Watcher, stop: stopping.StopFlag) -> None:
    """Redraws the terminal until `stop`, and leaves the last figures on it as text."""
    from impala_redis.workers.screen import Screen  # late: it imports rich

    with Screen() as screen:

        def show(status: RunStatus, trouble: Trouble | None) -> None:
            screen.show(rows(watcher.run, status), status, str(trouble) if trouble else None)

        watcher.watch(show, stop)
    saying.say(as_text(watcher.run, watcher.status))


if __name__ == "__main__":
    main()
