"""impala-status --population: the members of a population at a glance, read from Redis."""

import functools
import time
from typing import TYPE_CHECKING, Any

import click

from impala_redis.common.errors import ConfigError, RunMissing
from impala_redis.common.population.member import Member
from impala_redis.common.records.lines import record_of
from impala_redis.common.records.returns import shown_return
from impala_redis.common.server.address import without_password
from impala_redis.workers import saying, stopping
from impala_redis.workers.options import Function
from impala_redis.workers.terms import population_name

if TYPE_CHECKING:
    from impala_redis.common.population.link import Census

# As much of the lineage as --json gives.
MOST_COPIES_SHOWN = 100


def may_show_population(function: Function) -> Function:
    """Adds --population to impala-status; with it a population is shown instead of a run."""

    @functools.wraps(function)
    def show(population: str | None, **values: Any) -> None:
        if population is None:
            function(**values)
            return
        stopping.set_up_logging(values["log_level"], "status")
        with stopping.exit_codes(stopping.StopFlag()):
            if values["watch"] or values["delete"] or values["run"] or values["preset"]:
                raise ConfigError(
                    "a population is shown once, with all of its runs: leave out --watch, "
                    "--delete, --run and --preset"
                )
            _show(values["redis_url"], population, values["as_json"])

    return click.option(
        "--population",
        metavar="NAME",
        callback=population_name,
        # No variable: that of the learners would have a run's status show something else.
        allow_from_autoenv=False,
        show_envvar=True,
        help="Show the members of this population instead of a run: fitness, settings, copies.",
    )(show)


def _show(redis_url: str, population: str, as_json: bool) -> None:
    from impala_redis.common.population.link import PopulationLink  # late: it imports numpy

    link = PopulationLink(redis_url, population, "impala-status --population")
    link.require()
    census, lineage = link.census(), link.lineage()
    link.close()
    if not census.members:
        raise RunMissing(
            f"there is no member of a population {population!r} on {without_password(link.url)}; "
            f"start one with: impala-learner --population {population}"
        )
    if as_json:
        saying.say_json(as_report(population, census, lineage))
    else:
        saying.say(as_table(population, census))


def as_report(population: str, census: "Census", lineage: list[bytes]) -> dict[str, Any]:
    """The members and the last copies, newest first, for --json."""
    members = [
        {
            **{name: getattr(member, name) for name in SHOWN},
            "age_s": round(max(0.0, census.now_unix_s - member.unix_s), 3),
            "is_stale": member.is_stale(census.now_unix_s),
        }
        for member in census.members
    ]
    copies = [copy for line in lineage[:MOST_COPIES_SHOWN] if (copy := record_of(line))]
    return {
        "population": population,
        "members": members,
        "unreadable": sorted(census.refused),
        "copies": copies,
    }


SHOWN = (
    *("name", "fitness", "measure", "frames", "updates", "values", "generation", "copied_from"),
    *("copied_unix_s", "refused", "fingerprint"),
)


def as_table(population: str, census: "Census") -> str:
    """A line for each member, the fittest first."""
    keys = list(dict.fromkeys(key for member in census.members for key in member.values))
    head = ["run", "fitness", "frames", *(key.replace("_", " ") for key in keys)]
    head += ["generation", "copied", "refused", "told"]
    ranked = sorted(census.members, key=_rank)
    rows = [head, *(_row(member, keys, census.now_unix_s) for member in ranked)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    more = f"; {len(census.refused)} more have no readable record" if census.refused else ""
    alive = sum(not member.is_stale(census.now_unix_s) for member in census.members)
    return "\n".join(
        [f"population {population}: {len(ranked)} members, {alive} alive{more}", *lines]
    )


def _rank(member: Member) -> tuple[float, str]:
    return (-member.fitness if member.fitness is not None else float("inf")), member.name


def _row(member: Member, keys: list[str], now_unix_s: float) -> list[str]:
    copied = "-"
    if member.copied_from:
        at = time.strftime("%H:%M:%S", time.localtime(member.copied_unix_s))
        copied = f"{member.copied_from} at {at}"
    told = f"{max(0.0, now_unix_s - member.unix_s):,.0f} s ago"
    values = [f"{member.values[key]:.4g}" if key in member.values else "-" for key in keys]
    return [
        *(member.name, shown_return(member.fitness), f"{member.frames:,}", *values),
        *(str(member.generation), copied, str(member.refused)),
        told + (", silent" if member.is_stale(now_unix_s) else ""),
    ]
