"""Which learner of a group this process is, as torchrun says in environment variables."""

from collections.abc import Mapping
from typing import NamedTuple

from impala_redis.common.errors import ConfigError, printable

# No group has more learners.
MOST_RANKS = 1024


class Seat(NamedTuple):
    """A learner's place in its group of `ranks` learners."""

    rank: int  # 0 .. ranks - 1
    ranks: int  # 1 or more; the group of one needs nobody to meet
    local_rank: int  # among the learners of this machine: 0 or more
    restarts: int  # how often torchrun has begun anew, as far as this machine's torchrun knows
    address: str  # the store's host
    port: int  # the store's: 1 .. 65535
    serves_store: bool  # whether rank 0 must serve the store, since no torchrun does


def seat_in(variables: Mapping[str, str]) -> Seat | None:
    """The seat that environment variables name; None where nothing has started a group.

    WORLD_SIZE says that there is a group. A group of one may leave out all the other variables.

    Raises ConfigError, if a variable is missing, or is not what torchrun gives.
    """
    if not variables.get("WORLD_SIZE"):
        return None
    ranks = _number(variables, "WORLD_SIZE", 1, MOST_RANKS, None)
    alone = ranks == 1
    address = variables.get("MASTER_ADDR", "localhost" if alone else "")
    if not address:
        raise _refused("MASTER_ADDR is missing")
    return Seat(
        rank=_number(variables, "RANK", 0, ranks - 1, 0 if alone else None),
        ranks=ranks,
        local_rank=_number(variables, "LOCAL_RANK", 0, MOST_RANKS, 0 if alone else None),
        restarts=_number(variables, "TORCHELASTIC_RESTART_COUNT", 0, 10**9, 0),
        address=address,
        port=_number(variables, "MASTER_PORT", 1, 65535, 29500 if alone else None),
        serves_store=variables.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
    )


def _number(
    variables: Mapping[str, str], name: str, least: int, most: int, default: int | None
) -> int:
    """A variable's number; `default` where it is not set, unless that is None."""
    text = variables.get(name, "")
    if not text and default is not None:
        return default
    if not text:
        raise _refused(f"{name} is missing")
    fits = text.isascii() and text.isdigit() and len(text) <= 10
    if not fits or not least <= int(text) <= most:
        raise _refused(f"{name} is {printable(text)!r}, and not a number from {least} to {most}")
    return int(text)


def _refused(what: str) -> ConfigError:
    return ConfigError(
        f"WORLD_SIZE says that this learner is one of a group, but {what}; start the group by "
        "torchrun, or unset WORLD_SIZE for one learner alone"
    )
