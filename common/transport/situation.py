"""What readings of a run come to: rates, shares, and what limits the run."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from impala_redis.common.server.suitability import Eviction
from impala_redis.common.transport.diagnosis import (
    LEARNER_WAITS,
    Situation,
    Work,
    binding_stage,
    bottleneck,
)
from impala_redis.common.transport.monitor import WHEREABOUTS, Reading
from impala_redis.common.transport.replies import finite_number, whole_number

# A learner renews its lease each second, or three times a lease if that is shorter.
SILENT_S = 4.0
# The longest interval of its records is 60 s.
NO_RECORD_S = 90.0
# A list that is longer by fewer blocks has not grown: it goes up and down.
LEAST_GROWTH_BLOCKS = 8

# Names of figures that begin so end with the rank of a learner in its group.
WAIT_SHARE, STANDBY_SHARE = "wait_share:", "standby_share:"
# No shares of the ranks from this one on are recorded or read.
MOST_RANKS = 128
# A rank is slow when another one waits for its group longer than it does, by this share.
SLOW_RANK_COSTS = 0.1

RunStatus = dict[str, Any]  # a reading and what it comes to


class SlowRank(NamedTuple):
    """The learner of a group that the others wait for; shares are 0 to 1."""

    rank: int
    cost_share: float  # of the others' time, in which they wait for their group, in the mean
    wait_share: float  # of its own time, without a batch
    others: int  # how many wait for it

    def __str__(self) -> str:
        who = "the others stand" if self.others > 1 else "the other stands"
        share = f"{100 * self.cost_share:.0f} %"
        return f"rank {self.rank} is slow: {who} by for it {share} of the time"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.wait_share >= LEARNER_WAITS:
            return (
                f"it has no batch {100 * self.wait_share:.0f} % of the time, so look at its way to "
                "Redis and at what else its processors do"
            )
        if self.rank == 0:  # which the group's further learners do not do
            return (
                "it also publishes and saves, so give its processors nothing else to do, or give "
                "--publish-interval-s"
            )
        return "look at what else its processors or its GPU do, and give all ranks equal ones"


def summary(readings: Sequence[Reading]) -> RunStatus:
    """The last reading, what changed since the first of them, and what limits the run."""
    first, last = readings[0], readings[-1]
    elapsed_s = last["at"] - first["at"]
    status = {name: value for name, value in last.items() if name != "at"}
    if are_comparable(first, last) and elapsed_s > 0:
        status["blocks_per_s"] = {
            name: (last["books"][name] - first["books"][name]) / elapsed_s
            for name in ("produced", "consumed", "dropped_oldest")
        }
        updates = last["learner"]["weights_version"] - first["learner"]["weights_version"]
        status["updates_per_s"] = updates / elapsed_s
    found = situation(readings if are_comparable(first, last) else [last])
    status["bottleneck"], stage = bottleneck(found), binding_stage(found)
    status["binds"] = stage and stage._asdict()
    learner = last["learner"]
    slow = slow_rank_in(learner["figures"]) if figures_are_current(learner) else None
    status["slow_rank"] = slow and slow._asdict()
    return status


def are_comparable(first: Reading, last: Reading) -> bool:
    """Whether two readings are of the same books and the same learner."""
    same_books = first["books"]["generation"] == last["books"]["generation"]
    return bool(same_books and first["learner"]["epoch"] == last["learner"]["epoch"])


def situation(readings: Sequence[Reading]) -> Situation:
    """The situation of a run between the first and the last of its readings, which are in order.

    The books must be of one generation, the learners of one epoch. A single reading shows no share
    but memory's.
    """
    first, last = readings[0], readings[-1]
    memory, learner = last["memory"], last["learner"]
    known = Situation(
        learner_present=bool(learner["holder"]) and not learner.get("is_gone"),
        learner_lost=lost(learner),
        finished=last["state"] == "finished",
        actors=len(last["actors"]),
        memory_share=memory["share"] if memory else None,
        eviction=Eviction(memory.get("policy", ""), _evicted(readings)) if memory else None,
    )
    if len(readings) < 2:
        return known
    books = last["books"]
    more = {name: books[name] - first["books"][name] for name in ("produced", *WHEREABOUTS)}
    pushed = max(more["produced"], 1)
    idle = not (more["consumed"] or books["queued"] or books["in_flight"])
    has_figures = figures_are_current(learner) and bool(learner["figures"])
    grown = more["queued"] if more["queued"] >= LEAST_GROWTH_BLOCKS else 0
    return replace(
        known,
        # A learner with nothing to train on records seldom: its figure may be an old one.
        wait_share=1.0 if idle and has_figures else _mean_figure(readings, "wait_share"),
        dropped_share=min(more["dropped_oldest"] / pushed, 1.0),
        growth_share=min(grown / pushed, 1.0),
        refused_share=max(
            min((more["stale_rejected"] + more["dead_lettered"]) / pushed, 1.0),
            _mean_figure(readings, "refused_share") or 0.0,  # single columns of blocks, too
        ),
        shed_share=_shed_share(first["actors"], last["actors"]),
        blocked_share=_blocked_share(first, last),
        claim_share=_mean_figure(readings, "claim_share"),
        work=work_of(partial(_mean_figure, readings)),
        slow_rank=_slow_rank(learner) if has_figures else None,
    )


def costs_more_than_waiting(slow: SlowRank | None, wait_share: float | None) -> str | None:
    """The slow rank with its remedy; None if the group's first learner waits longer for blocks."""
    if slow is None or slow.cost_share < (wait_share or 0.0):
        return None
    return f"{slow}; {slow.remedy}"


def slow_rank_in(figures: Mapping[str, Any]) -> SlowRank | None:
    """The learner of a group that the others wait for, by the figures that a record has.

    There is none where others lack batches as well: then all of them wait for actors.
    """
    standby = shares_by_rank(figures, STANDBY_SHARE)
    rank = slow_rank(standby)
    if rank is None:
        return None
    others = [share for other, share in standby.items() if other != rank]
    waits = shares_by_rank(figures, WAIT_SHARE)
    wait = waits.pop(rank, 0.0)
    if min(wait, max(waits.values(), default=0.0)) >= LEARNER_WAITS:
        return None
    return SlowRank(rank, sum(others) / len(others), wait, len(others))


def slow_rank(standby: Mapping[int, float]) -> int | None:
    """The rank that stands by least while another does so longer by SLOW_RANK_COSTS or more.

    Args:
      standby: for each rank the share of its time in which it waited for the others, 0 to 1.
    """
    if not standby:
        return None
    rank = min(standby, key=lambda one: (standby[one], one))
    return rank if max(standby.values()) - standby[rank] >= SLOW_RANK_COSTS else None


def shares_by_rank(figures: Mapping[str, Any], family: str) -> dict[int, float]:
    """The shares whose names are the family's and a rank, in order; each is held to 0 to 1.

    Anybody may have written them: what is no number, and a name that does not end in a rank below
    MOST_RANKS, is left out.
    """
    found = {}
    for name, value in figures.items():
        rank = name.removeprefix(family)
        is_rank = rank != name and re.fullmatch("0|[1-9][0-9]{0,2}", rank)
        if is_rank and int(rank) < MOST_RANKS and isinstance(value, int | float) and value == value:
            found[int(rank)] = float(min(max(value, 0), 1))
    return dict(sorted(found.items()))


def _slow_rank(learner: Mapping[str, Any]) -> str | None:
    figures = learner["figures"]
    return costs_more_than_waiting(slow_rank_in(figures), figures.get("wait_share"))


def work_of(figure: Callable[[str], float | None]) -> Work | None:
    """What a learner's figures say, each asked for by its name; None if they lack the device's.

    A learner on a GPU is known by `device_memory_bytes`.
    """
    busy, transfer_s, updates_per_s = map(
        figure, ("device_busy_share", "transfer_s", "updates_per_s")
    )
    if busy is None:
        return None
    transfer = (transfer_s or 0.0) * (updates_per_s or 0.0)
    return Work(
        busy,
        min(transfer, busy),
        figure("publish_share") or 0.0,
        figure("device_memory_bytes") is not None,
    )


def _evicted(readings: Sequence[Reading]) -> int:
    """Keys that the server has evicted between the first reading and the last."""
    known = [reading["memory"] for reading in (readings[0], readings[-1]) if reading["memory"]]
    counts: list[int] = [memory.get("evicted_keys", 0) for memory in known]
    return max(0, counts[-1] - counts[0])


def figures_are_current(learner: Mapping[str, Any]) -> bool:
    """Whether figures are of a learner that holds the lease and works: they outlive it."""
    epoch: int = learner["epoch"]
    is_at_work = bool(learner["holder"]) and lost(learner) is None
    return is_at_work and learner["figures"].get("epoch", epoch) == epoch


def lost(learner: Mapping[str, Any]) -> str | None:
    """Why nothing is to be expected of the learner that holds the lease; None if all is well."""
    if not learner["holder"]:
        return None
    name = learner["holder"].partition("#")[0]  # host:pid
    silent_s, age_s = learner.get("silent_s"), learner.get("figures_age_s")
    if learner.get("is_gone"):
        return f"the learner {name} has ended without giving its lease back"
    if silent_s is not None and silent_s >= SILENT_S:
        return f"no news of the learner {name} for {silent_s:.0f} s: it is stopped, cut off or gone"
    if age_s is not None and age_s >= NO_RECORD_S:
        return f"the learner {name} has made no record for {age_s:.0f} s: it hangs, or is very slow"
    return None


def behind(actor: Mapping[str, Any], published: int) -> int:
    """By how many versions an actor's weights were older than the published ones when it said so.

    An actor of release 0.1 does not say which were published then; it is compared with those of
    now, which may be many versions newer.
    """
    known = whole_number(actor.get("published_version"), published)
    return known - whole_number(actor.get("weights_version"), 0)


def _mean_figure(readings: Sequence[Reading], name: str) -> float | None:
    """The mean of one of the present learner's own figures; None if no reading has it."""
    epoch = readings[-1]["learner"]["epoch"]
    values = [
        learner["figures"][name]
        for learner in (reading["learner"] for reading in readings)
        if learner["epoch"] == epoch and figures_are_current(learner) and name in learner["figures"]
    ]
    return sum(values) / len(values) if values else None


def _blocked_share(first: Reading, last: Reading) -> float | None:
    """The share of the actors' time in which they waited for room; None if there are none."""
    before, now = first["actors"], last["actors"]
    elapsed_s: float = last["at"] - first["at"]
    waits_s = [
        more
        for name in before.keys() & now.keys()
        if (more := _seconds(now[name]) - _seconds(before[name])) >= 0  # else it has restarted
    ]
    if not waits_s or elapsed_s <= 0:
        return None
    return min(sum(waits_s) / (elapsed_s * len(waits_s)), 1.0)


def _seconds(actor: Mapping[str, str]) -> float:
    """How long an actor says that it has waited; 0 if it says nothing that is a number."""
    return finite_number(actor.get("waited_s")) or 0.0


def _shed_share(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    """The share of blocks that actors played and never pushed; None if none was played."""
    generated = shed = 0
    for name in before.keys() & now.keys():
        more = {
            counter: whole_number(now[name].get(counter), 0)
            - whole_number(before[name].get(counter), 0)
            for counter in ("generated", "shed_local")
        }
        if more["generated"] > 0 and more["shed_local"] >= 0:  # else it has restarted
            generated += more["generated"]
            shed += more["shed_local"]
    return min(shed / generated, 1.0) if generated else None
