"""On which terms a learner takes a run from a server: options that impala-train passes on."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from impala_redis.workers.command import Amount
from impala_redis.workers.options import Function, option


class Terms(NamedTuple):
    """What a learner may do to get a run, and what it accepts."""

    take_over: bool = False  # the run is taken from a learner that holds it
    # Seconds to wait for the lease of another learner; None: as long as nobody renews it.
    wait_lease_s: float | None = None
    allow_eviction: bool = False  # the server may evict the run's keys

    def as_arguments(self) -> list[str]:
        """The options as they would be typed."""
        arguments = ["--take-over"] if self.take_over else []
        arguments += ["--allow-eviction"] if self.allow_eviction else []
        if self.wait_lease_s is not None:
            arguments.append(f"--wait-lease-s={self.wait_lease_s}")
        return arguments


def terms_options(function: Function) -> Function:
    """Adds the options; the program gets them as one argument, `terms`."""

    @functools.wraps(function)
    def with_terms(**options: Any) -> Any:
        terms = Terms(*(options.pop(name) for name in Terms._fields))
        return function(**options, terms=terms)

    decorated: Callable[..., Any] = with_terms
    for add in reversed(_OPTIONS):
        decorated = add(decorated)
    return decorated


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
)
