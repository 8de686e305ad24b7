"""What holds a run up, in one sentence with its remedy; for impala-status and impala-report.

A run is as fast as the slower of two sides: actors that play, and a learner that trains. Between
them lies the server. Who waits, and whose blocks are too many, shows which one it is.
"""

from dataclasses import dataclass

# A learner that computes while its feeder fetches still waits for some of its batches: below this
# more data would hardly speed it up.
LEARNER_WAITS = 0.25
# Where blocks lie ready it is the intake that is to blame only for the greater part of the time.
INTAKE_IS_SLOW = 0.5
# The list is short: a little is dropped whenever the learner pauses, for a checkpoint say.
TOO_MANY_DROPPED = 0.05
# An actor's ring takes up a short pause of the server: what is shed was held up for longer.
TOO_MANY_SHED = 0.05
# A few unfit blocks are no reason to wait; a policy that lags too far shows in many.
TOO_MANY_REFUSED = 0.05
# More than half of the intake's time for replies: the link, not the work on the blocks, is slow.
REPLIES_ARE_SLOW = 0.5
# Above this there is little room for a burst of blocks and weights.
MEMORY_IS_SHORT = 0.8
# About here commands are refused, the renewal of the learner's lease too: look no further.
MEMORY_IS_FULL = 0.97

NOT_ENOUGH_FIGURES = "not enough figures yet: look again in some seconds"


@dataclass(frozen=True)
class Situation:
    """What is known of a run's last seconds; shares are 0 to 1, None is unknown."""

    learner_present: bool | None = None  # it holds the run's lease
    finished: bool | None = None  # the learner has said that the run is over
    actors: int | None = None
    wait_share: float | None = None  # of the learner's time: without a batch
    dropped_share: float | None = None  # of the blocks pushed: dropped because the list was full
    growth_share: float | None = None  # of the blocks pushed: those by which the list has grown
    refused_share: float | None = None  # of the blocks pushed: too old or unfit to train on
    shed_share: float | None = None  # of the blocks played: never pushed, the actor's ring was full
    claim_share: float | None = None  # of the feeder's time: waiting for Redis's replies
    memory_share: float | None = None  # used, of the server's maxmemory


def bottleneck(situation: Situation) -> str:
    """What limits the run and what to do about it, the gravest first. Claims nothing unknown."""
    return (
        _what_stops_it(situation)
        or _short_memory(situation.memory_share, MEMORY_IS_SHORT)
        or _slower_side(situation)
        or NOT_ENOUGH_FIGURES
    )


def _what_stops_it(situation: Situation) -> str | None:
    """Why nothing is learned at all."""
    if situation.finished and not situation.learner_present:
        return "the run is finished: nothing holds it up; impala-eval shows how well it plays"
    if full := _short_memory(situation.memory_share, MEMORY_IS_FULL):
        return full
    if situation.learner_present is False:
        return "no learner holds the run: start one with impala-learner, with --resume to go on"
    if situation.actors == 0:
        return "no actors: start some with impala-actor"
    return None


def _short_memory(share: float | None, threshold: float) -> str | None:
    if share is None or share < threshold:
        return None
    return (
        f"the server is at {_percent(share)} of its memory; raise its maxmemory or take other data "
        "off it: once full, it refuses blocks and weights"
    )


def _slower_side(situation: Situation) -> str | None:
    """Who waits for whom; None as long as it cannot be told."""
    wait, dropped = situation.wait_share, situation.dropped_share
    if wait is None or dropped is None:
        return None
    if dropped >= TOO_MANY_DROPPED and wait >= INTAKE_IS_SLOW:
        return _slow_intake(wait, dropped, situation.claim_share)
    if dropped < TOO_MANY_DROPPED and wait >= LEARNER_WAITS:
        return _lack_of_blocks(wait, situation)
    return _surplus(dropped, situation) or (
        f"balanced: the learner waits {_percent(wait)} and actors are dropping "
        f"{_percent(dropped)}; to go faster, give both sides more"
    )


def _slow_intake(wait: float, dropped: float, claim: float | None) -> str:
    """Blocks lie ready, and the learner waits for them all the same."""
    if claim is not None and claim >= REPLIES_ARE_SLOW:
        return (
            f"link-bound: the learner waits {_percent(wait)} while the list is full, and its "
            f"intake waits {_percent(claim)} for Redis; use a faster network or a nearer server"
        )
    return (
        f"intake-bound: the learner waits {_percent(wait)} while actors are dropping "
        f"{_percent(dropped)}; give it a free processor, or larger blocks with --envs-per-actor"
    )


def _lack_of_blocks(wait: float, situation: Situation) -> str:
    """Why too few blocks come that the learner can train on."""
    refused, shed = situation.refused_share, situation.shed_share
    if refused is not None and refused >= TOO_MANY_REFUSED:
        return (
            f"the learner waits {_percent(wait)} and refuses {_percent(refused)} of the blocks; "
            "raise --max-policy-lag if they are too old, else stop the actors that do not fit"
        )
    if shed is not None and shed >= TOO_MANY_SHED:
        return (
            f"link-bound: actors shed {_percent(shed)} themselves, the way to Redis is too slow; "
            "use a faster network or, on one machine, free a processor"
        )
    return f"actor-bound: the learner waits {_percent(wait)}; add actors or environments"


def _surplus(dropped: float, situation: Situation) -> str | None:
    """More than a busy learner takes, and where it shows."""
    growth, shed = situation.growth_share, situation.shed_share
    if dropped >= TOO_MANY_DROPPED:
        what = f"actors are dropping {_percent(dropped)}"
    elif growth is not None and growth >= TOO_MANY_DROPPED:
        what = f"the list grows by {_percent(growth)} of what actors push"
    elif shed is not None and shed >= TOO_MANY_SHED:
        what = f"actors shed {_percent(shed)} themselves"
    else:
        return None
    return f"learner-bound: {what}; use a GPU or fewer actors"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
