"""What limits a run: one sentence with its remedy, and the stage of the way that binds.

A run is as fast as the slower of two sides: actors that play, and a learner that trains. Between
them lies the server. Which side waits, and where blocks pile up, shows which one is slower. Where
it is the learner, the longest of its stages says why.
"""

from dataclasses import dataclass
from typing import NamedTuple

from impala_redis.common.server.suitability import Eviction

# A learner that computes while its feeder fetches still waits for some of its batches. Below this
# share more data would hardly speed it up.
LEARNER_WAITS = 0.25
# Where blocks lie ready, the intake is the cause only of a wait for the greater part of the time.
INTAKE_IS_SLOW = 0.5
# The list is short: some blocks are dropped whenever the learner pauses, as for a checkpoint.
TOO_MANY_DROPPED = 0.05
# An actor's ring bridges a short pause of the server; blocks are shed after a longer one.
TOO_MANY_SHED = 0.05
# An actor whose blocks wait for room plays one ahead: a short pause of the learner is no wait.
TOO_LONG_BLOCKED = 0.05
# A few unfit blocks are no reason to wait; a policy that lags too far shows in many.
TOO_MANY_REFUSED = 0.05
# If the intake waits for replies for half its time, the link is slow, not the work on blocks.
REPLIES_ARE_SLOW = 0.5
# Above this there is little room for a burst of blocks and weights.
MEMORY_IS_SHORT = 0.8
# About here commands are refused, also the renewal of the learner's lease: look no further.
MEMORY_IS_FULL = 0.97

# A publisher that has hardly a pause keeps taking the interpreter from the main thread.
PUBLISHER_IS_BUSY = 0.9

NOT_ENOUGH_FIGURES = "not enough figures yet: look again in some seconds"


class Remedy(NamedTuple):
    """What goes on while a stage binds, and what to do about it."""

    meaning: str
    on_cpu: str  # for a learner on a CPU
    on_gpu: str


_NETWORK = "use a faster network or a nearer server"
_FREE_FEEDER = "give it a free processor, or larger blocks with --envs-per-actor"
_LARGER = "take a larger --batch-size"
_FEWER_VERSIONS = "give --publish-interval-s or --weights-dtype bfloat16"
# The stages of the way from an actor's step to new weights, in order.
STAGES = {
    "actors": Remedy(
        "the learner waits for blocks",
        "add actors or environments",
        "add actors or environments, or let one act on a GPU: impala-actor --device cuda",
    ),
    "link": Remedy("blocks are on their way through Redis", _NETWORK, _NETWORK),
    "feeder": Remedy("blocks lie ready and become batches", _FREE_FEEDER, _FREE_FEEDER),
    "transfer": Remedy(
        "batches go to the device",
        "use a GPU",
        "take observations of fewer bytes, or look for pinned memory in the learner's log",
    ),
    "device": Remedy(
        "the device computes", "use a GPU", "try --precision tf32 or bfloat16, or a smaller network"
    ),
    "host": Remedy("the device waits for the learner's main thread", _LARGER, _LARGER),
    "publisher": Remedy(
        "the device waits for the main thread, and that for the publisher's",
        _FEWER_VERSIONS,
        _FEWER_VERSIONS,
    ),
}


class Stage(NamedTuple):
    """The stage that binds, and the share of the learner's time for which it does, 0 to 1."""

    name: str  # one of STAGES
    share: float


class Work(NamedTuple):
    """How a learner spends its time, by its own figures; shares are 0 to 1."""

    device_share: float  # its device has an update to compute, or waits for the batch of one
    transfer_share: float = 0.0  # the batch alone
    publish_share: float = 0.0  # of the publisher's time: packing and sending
    on_gpu: bool = False


@dataclass(frozen=True)
class Situation:
    """What is known of a run's last seconds; shares are 0 to 1, None is unknown."""

    learner_present: bool | None = None  # it holds the run's lease
    learner_lost: str | None = None  # why nothing is to be expected of the one that holds it
    finished: bool | None = None  # the learner has said that the run is over
    actors: int | None = None
    wait_share: float | None = None  # of the learner's time: waiting for a batch
    dropped_share: float | None = None  # of the blocks pushed: dropped because the list was full
    growth_share: float | None = None  # of the blocks pushed: those by which the list has grown
    refused_share: float | None = None  # of what was pushed: too old or unfit to train on
    shed_share: float | None = None  # of the blocks played: not pushed, the actor's ring was full
    blocked_share: float | None = None  # of the actors' time: waiting for room in the list
    claim_share: float | None = None  # of the feeder's time: waiting for Redis's replies
    memory_share: float | None = None  # used, of the server's maxmemory
    eviction: Eviction | None = None  # the server's policy, and the keys that it evicted
    work: Work | None = None
    slow_rank: str | None = None  # the learner of a group that holds it up most, and the remedy


def bottleneck(situation: Situation) -> str:
    """What limits the run and what to do about it; the gravest cause that the figures show."""
    return (
        _what_stops_it(situation)
        or _short_memory(situation, MEMORY_IS_SHORT)
        or (situation.slow_rank and f"rank-bound: {situation.slow_rank}")
        or _slower_side(situation)
        or NOT_ENOUGH_FIGURES
    )


def binding_stage(situation: Situation) -> Stage | None:
    """The stage that a faster run would have to shorten first; None if the figures do not show it.

    While the learner waits for batches it is one before the learner, else the longest of the
    learner's own: an update is no sooner ready than all of them have ended. A group whose learners
    wait for a slow one has none.
    """
    wait, work = situation.wait_share, situation.work
    if wait is None or situation.dropped_share is None or situation.slow_rank:
        return None
    if before := _stage_before(situation):
        return Stage(before, wait)
    if work is None:
        return None
    shares = {
        "transfer": work.transfer_share,
        "device": work.device_share - work.transfer_share,
        "host": max(1.0 - wait - work.device_share, 0.0),
    }
    name = max(shares, key=lambda stage: shares[stage])
    is_publisher = name == "host" and work.publish_share >= PUBLISHER_IS_BUSY
    return Stage("publisher" if is_publisher else name, shares[name])


def _what_stops_it(situation: Situation) -> str | None:
    """Why nothing is learned at all."""
    if situation.finished and not situation.learner_present:
        return "the run is finished: nothing holds it up; impala-eval shows how well it plays"
    if situation.eviction and situation.eviction.hits_runs:
        return (
            f"the server has just evicted {situation.eviction.evicted_keys:,} keys "
            f"(maxmemory-policy {situation.eviction.policy}), and the run's may be among them; set "
            "maxmemory-policy noeviction, and give the server more memory"
        )
    if full := _short_memory(situation, MEMORY_IS_FULL):
        return full
    if situation.learner_lost:
        return f"{situation.learner_lost}; to go on, start one with impala-learner --resume"
    if situation.learner_present is False:
        return "no learner holds the run: start one with impala-learner, with --resume to go on"
    if situation.actors == 0:
        return "no actors: start some with impala-actor"
    return None


def _short_memory(situation: Situation, threshold: float) -> str | None:
    share, eviction = situation.memory_share, situation.eviction
    if share is None or share < threshold:
        return None
    evicts = eviction is not None and eviction.endangers_runs
    then = "it evicts keys" if evicts else "it refuses blocks and weights"
    return (
        f"the server is at {_percent(share)} of its memory; raise its maxmemory or take other data "
        f"off it: once full, {then}"
    )


def _slower_side(situation: Situation) -> str | None:
    """Which side waits for the other; None while the figures do not show it."""
    wait, dropped = situation.wait_share, situation.dropped_share
    if wait is None or dropped is None:
        return None
    if before := _stage_before(situation):
        return _before_the_learner(before, wait, situation)
    return _surplus(dropped, situation) or _both_keep_up(wait, dropped, situation)


def _stage_before(situation: Situation) -> str | None:
    """The stage for which the learner waits; None while it waits little."""
    wait, shed = situation.wait_share or 0.0, situation.shed_share or 0.0
    if _piles_up(situation):
        if wait < INTAKE_IS_SLOW:
            return None
        return "link" if (situation.claim_share or 0.0) >= REPLIES_ARE_SLOW else "feeder"
    if wait < LEARNER_WAITS:
        return None
    return "link" if shed >= TOO_MANY_SHED and not _refuses_many(situation) else "actors"


def _piles_up(situation: Situation) -> bool:
    return (situation.dropped_share or 0.0) >= TOO_MANY_DROPPED or _is_blocked(situation)


def _is_blocked(situation: Situation) -> bool:
    return (situation.blocked_share or 0.0) >= TOO_LONG_BLOCKED


def _refuses_many(situation: Situation) -> bool:
    return (situation.refused_share or 0.0) >= TOO_MANY_REFUSED


def _before_the_learner(stage: str, wait: float, situation: Situation) -> str:
    """Why the learner waits, although blocks lie ready or because too few come."""
    remedy = _remedy(stage, situation)
    if stage == "feeder":
        return (
            f"intake-bound: the learner waits {_percent(wait)} while {_what_piles_up(situation)}; "
            f"{remedy}"
        )
    if stage == "link" and _piles_up(situation):
        return (
            f"link-bound: the learner waits {_percent(wait)} while the list is full, and its "
            f"intake waits {_percent(situation.claim_share or 0.0)} for Redis; {remedy}"
        )
    if stage == "link":
        return (
            f"link-bound: actors shed {_percent(situation.shed_share or 0.0)} themselves, the way "
            "to Redis is too slow; use a faster network or, on one machine, free a processor"
        )
    if _refuses_many(situation):
        refused = _percent(situation.refused_share or 0.0)
        return (
            f"the learner waits {_percent(wait)} and refuses {refused} of the blocks; "
            "raise --max-policy-lag if they are too old, else look at the environment's numbers "
            "and stop the actors that do not fit"
        )
    return f"actor-bound: the learner waits {_percent(wait)}; {remedy}"


def _what_piles_up(situation: Situation) -> str:
    if _is_blocked(situation):
        return f"actors wait {_percent(situation.blocked_share or 0.0)} for room in the list"
    return f"actors are dropping {_percent(situation.dropped_share or 0.0)}"


def _surplus(dropped: float, situation: Situation) -> str | None:
    """Where blocks pile up that a busy learner does not take; None if they do not."""
    growth, shed = situation.growth_share, situation.shed_share
    if dropped >= TOO_MANY_DROPPED or _is_blocked(situation):
        what = _what_piles_up(situation)
    elif growth is not None and growth >= TOO_MANY_DROPPED:
        what = f"the list grows by {_percent(growth)} of what actors push"
    elif shed is not None and shed >= TOO_MANY_SHED:
        what = f"actors shed {_percent(shed)} themselves"
    else:
        return None
    stage = binding_stage(situation)
    remedy = _remedy(stage.name if stage else "device", situation)
    return f"learner-bound: {what}; {remedy}, or fewer actors"


def _both_keep_up(wait: float, dropped: float, situation: Situation) -> str:
    """What to say where neither side waits much for the other."""
    work, stage = situation.work, binding_stage(situation)
    if work and work.on_gpu and stage:
        return (
            f"{stage.name}-bound: the learner waits {_percent(wait)} and its device is busy "
            f"{_percent(work.device_share)}; {_remedy(stage.name, situation)}"
        )
    return (
        f"balanced: the learner waits {_percent(wait)} and actors are dropping "
        f"{_percent(dropped)}; to go faster, give both sides more"
    )


def _remedy(stage: str, situation: Situation) -> str:
    on_gpu = situation.work is not None and situation.work.on_gpu
    return STAGES[stage].on_gpu if on_gpu else STAGES[stage].on_cpu


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
