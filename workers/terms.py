"""How a learner gets its run, and with whom it shares it: options that impala-train passes on."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from impala_redis.workers.command import Amount
from impala_redis.workers.options import Function, option

# Some hundred episodes of most tasks, and some minutes of training.
POPULATION_INTERVAL = 2_000_000


class Terms(NamedTuple):
    """What a learner may do to get a run, what it accepts, and which others it copies."""

    take_over: bool = False  # the run is taken from a learner that holds it
    # Seconds to wait for the lease of another learner; None: as long as nobody renews it.
    wait_lease_s: float | None = None
    allow_eviction: bool = False  # the server may evict the run's keys
    population: str | None = None  # whose member the run is
    population_interval: int = POPULATION_INTERVAL  # in frames

    def as_arguments(self) -> list[str]:
        """The options as they would be typed."""
        arguments = ["--take-over"] if self.take_over else []
        arguments += ["--allow-eviction"] if self.allow_eviction else []
        if self.wait_lease_s is not None:
            arguments.append(f"--wait-lease-s={self.wait_lease_s}")
        if self.population is not None:
            arguments += [f"--population={self.population}"]
            arguments += [f"--population-interval={self.population_interval}"]
        return arguments

    def check_server(self, is_own: bool) -> None:
        """Raises click.UsageError: a server of impala-train's own has no other members."""
        if self.population is not None and is_own:
            raise click.UsageError(
                "the members of a population meet on one server, and nobody else finds this one; "
                "name a server with --redis-url, or give it an --embedded-port"
            )


def terms_options(function: Function) -> Function:
    """Adds the options; the program gets them as one argument, `terms`."""

    @functools.wraps(function)
    def with_terms(**options: Any) -> Any:
        terms = Terms(*(options.pop(name) for name in Terms._fields))
        source = click.get_current_context().get_parameter_source("population_interval")
        if terms.population is None and source is ParameterSource.COMMANDLINE:
            raise click.UsageError("--population-interval is for members: give --population, too")
        return function(**options, terms=terms)

    decorated: Callable[..., Any] = with_terms
    for add in reversed(_OPTIONS):
        decorated = add(decorated)
    return decorated


def population_name(
    context: click.Context, parameter: click.Parameter, name: str | None
) -> str | None:
    """The checked name, as the callback of an option. Raises click.BadParameter."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise click.BadParameter(
            f"{name!r} cannot name a population: it takes 1 to 64 letters, digits, '.', '_' or '-'",
            context,
            parameter,
        )
    return name


_OPTIONS = (
    option("take-over", is_flag=True, help="Take the run from a learner that holds it."),
    option(
        "wait-lease-s",
        type=Amount(min=0),
        show_default="until it ends, but only while nobody renews it",
        help="Seconds to wait for the lease of another learner, even of one that renews it.",
    ),
    option(
        "allow-eviction",
        is_flag=True,
        help="Use a server that may evict the run's keys: blocks may be lost, and the run is "
        "opened again when its books or weights are.",
    ),
    option(
        "population",
        metavar="NAME",
        callback=population_name,
        help="Be a member of this population: runs on one server that copy weights and settings "
        "from each other (docs/population.md).",
    ),
    option(
        "population-interval",
        metavar="FRAMES",
        type=click.IntRange(min=1),
        default=POPULATION_INTERVAL,
        help="Frames of the run from one comparison with another member to the next.",
    ),
)
