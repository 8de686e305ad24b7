"""impala-status: one screen of a run, read from Redis: queue, rates, lag, books, actors."""

import json
import time
from typing import Any

import click

from common.errors import ConfigError
from common.monitor import WHEREABOUTS, MonitorSide, residual
from common.transport import number
from workers import runtime
from workers.options import shared
from workers.plan import run_name

# Rates are the difference of two readings this far apart.
SAMPLE_S = 1.0
COUNTERS = ("produced", *WHEREABOUTS)


@click.command(context_settings=runtime.CONTEXT)
@shared("redis-url", "run", "preset")
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
def main(
    redis_url: str, run: str | None, preset: str | None, watch: bool, as_json: bool, log_level: str
) -> None:
    """Shows how a run is doing."""
    runtime.set_up_logging(log_level, "status")
    stop = runtime.StopFlag()
    with runtime.exit_codes(stop):
        if not (run or preset):
            raise ConfigError("which run? give --run NAME")
        side = MonitorSide(redis_url, run_name(run, preset), "status")
        before = read(side)
        while True:
            stopped = stop.wait(SAMPLE_S)
            now = read(side)
            status = with_rates(before, now)
            if watch and not as_json:
                click.clear()
            click.echo(json.dumps(status) if as_json else in_words(side.run, status))
            before = now
            if stopped or not watch:
                break
        side.close()


def read(side: MonitorSide) -> dict[str, Any]:
    """One reading. Raises RunMissing."""
    books, spec = side.read_books(), side.read_spec()
    return {
        "at": time.monotonic(),
        "books": books,
        "residual": residual(books),
        "learner": side.read_learner(),
        "state": spec.state if spec else None,
        "actors": side.read_actors(),
    }


def with_rates(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The later reading with what changed since the earlier one, per second."""
    elapsed_s = now["at"] - before["at"]
    status = {name: value for name, value in now.items() if name != "at"}
    if before["books"]["generation"] == now["books"]["generation"]:
        status["blocks_per_s"] = {
            name: (now["books"][name] - before["books"][name]) / elapsed_s
            for name in ("produced", "consumed", "dropped_oldest")
        }
        updates = now["learner"]["weights_version"] - before["learner"]["weights_version"]
        status["updates_per_s"] = updates / elapsed_s
    return status


def in_words(run: str, status: dict[str, Any]) -> str:
    """The reading for a person."""
    books, learner, figures = status["books"], status["learner"], status["learner"]["figures"]
    rates = status.get("blocks_per_s", {})
    lines = [
        f"run      {run}, {status['state'] or 'not announced'}",
        f"learner  {learner['holder'] or 'none: no lease is held'}, epoch {learner['epoch']}",
        f"weights  version {learner['weights_version']}{_age(learner['published_unix_s'])}",
    ]
    if figures:
        when = "training" if learner["holder"] else "last    "
        lines.append(
            f"{when} {figures.get('frames', 0):,.0f} frames, "
            f"{figures.get('frames_per_s', 0):,.0f}/s, "
            f"{figures.get('updates', 0):,.0f} updates, return "
            f"{_figure(figures, 'mean_return_100')}, policy lag "
            f"{_figure(figures, 'policy_lag_mean')} (max {_figure(figures, 'policy_lag_max')})"
        )
    lines.append(
        f"queue    {books['queued']} blocks, {books['in_flight']} in flight; per second "
        f"{rates.get('produced', 0):.1f} pushed, {rates.get('consumed', 0):.1f} consumed, "
        f"{rates.get('dropped_oldest', 0):.1f} dropped; "
        f"{status.get('updates_per_s', 0):.1f} updates/s"
    )
    lines.append("books    " + ", ".join(f"{name} {books.get(name, 0):,}" for name in COUNTERS))
    reasons = [
        f"{name.partition(':')[2]} {count}"
        for name, count in sorted(books.items())
        if name.startswith("dead_lettered:")
    ]
    if reasons:
        lines.append("refused  " + ", ".join(reasons))
    lines += notices(status)
    lines.append(f"actors   {len(status['actors'])}")
    for name, actor in status["actors"].items():
        lag = learner["weights_version"] - number(actor.get("weights_version"), 0)
        lines.append(
            f"  {name:<24} {actor.get('host', '?')}:{actor.get('pid', '?')}  "
            f"{number(actor.get('frames_per_s'), 0):>9,} frames/s  version "
            f"{actor.get('weights_version', '?')} ({lag} behind)  shed {actor.get('shed_local', 0)}"
        )
    return "\n".join(lines)


def notices(status: dict[str, Any]) -> list[str]:
    """What an operator must not overlook, the gravest first."""
    books, figures = status["books"], status["learner"]["figures"]
    lines = []
    if status["residual"]:
        lines.append(
            f"ALARM    the books do not balance: {status['residual']} blocks are unexplained"
        )
    if lost := int(figures.get("runs_lost", 0)):
        lines.append(
            f"notice   opened again: {lost}; the server had lost the run or a part of it, and the "
            "blocks that were there are gone"
        )
    if books.get("foreign"):
        lines.append(f"notice   {books['foreign']} blocks came onto the list around the push")
    if skipped := int(figures.get("updates_skipped", 0)):
        lines.append(f"notice   {skipped} updates were skipped: their gradients were not finite")
    return lines


def _age(published_unix_s: float | None) -> str:
    if published_unix_s is None:
        return ": none published"
    return f", published {max(0.0, time.time() - published_unix_s):.1f} s ago"


def _figure(figures: dict[str, float], name: str) -> str:
    return f"{figures[name]:.1f}" if name in figures else "-"


if __name__ == "__main__":
    main()
