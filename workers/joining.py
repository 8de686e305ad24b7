"""What an actor does before it plays: it waits for a run and its weights."""

import logging
import secrets
import time
from typing import NamedTuple

from impala_redis.common.acting.weights import unpack_reply
from impala_redis.common.blocks import compression
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import MessageRefused, RedisUnreachable, WaitedTooLong
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.backoff import Backoff
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.workers import pacing
from impala_redis.workers.outfit import Outfit
from impala_redis.workers.stopping import StopFlag

log = logging.getLogger(__name__)

# Pauses between looks for a run are about a twentieth of the time waited: short at first, so that
# an actor joins at once when all programs are started together.
FIRST_POLL_S, LAST_POLL_S, POLL_FACTOR = 0.005, 1.0, 1.05
# A wait is logged after this time, and again after each interval.
SAY_SO_AFTER_S = 3.0
NOTICE_S = 60.0


class OpenRun(NamedTuple):
    """All that an actor needs to join a run."""

    spec: RunSpec
    digest: str  # of the spec as it stands in Redis
    weights: VersionedWeights
    join: int  # how often an actor of this name has joined before
    start: int = 0  # of the places in the schedule of tasks that are dealt to this actor


def wait_for_run(
    link: ActorLink,
    actor: str,
    give_up_after_s: float,
    stop: StopFlag,
    outfit: Outfit,
    until_finished: bool = False,
) -> OpenRun | None:
    """The run, once a learner has published its spec and weights; None if stopped.

    None also for a finished run if `until_finished`, else it waits for the next one. The actor
    is dealt as many places of the tasks as it will have environments by its `outfit`.

    Raises WaitedTooLong, or SpecMismatch: this version cannot join the run.
    """
    began = time.monotonic()
    notice_due = pacing.every(NOTICE_S)
    backoff = Backoff(
        wait=stop.wait, first_s=FIRST_POLL_S, longest_s=LAST_POLL_S, factor=POLL_FACTOR
    )
    said_so = False
    while not stop():
        try:
            run, why = _look_for_run(link, actor, outfit)
        except RedisUnreachable as error:
            run, why = None, str(error)
        if run is not None:
            return run
        if until_finished and why == _finished(link.run):
            return None
        waited_s = time.monotonic() - began
        if waited_s >= give_up_after_s:
            raise WaitedTooLong(f"{why}, and --wait-learner-s is over")
        if (not said_so and waited_s >= SAY_SO_AFTER_S) or notice_due():
            log.info("waiting: %s", why)
            said_so = True
        backoff.pause()
    return None


def _look_for_run(link: ActorLink, actor: str, outfit: Outfit) -> tuple[OpenRun | None, str]:
    """The run, or why it cannot be joined yet."""
    reply = link.read_spec()
    if reply is None:
        return None, f"no learner has opened the run {link.run!r}"
    if reply.state != "running":
        return None, _finished(link.run)
    spec = RunSpec.from_json(reply.json)
    if spec.compression != "none":
        compression.check_installed()
    weights = _read_weights(link, spec)
    if weights is None:
        return None, "the learner has published no weights that fit"
    if link.is_listed(actor):
        log.warning(
            "another actor calls itself %s, or did some seconds ago: impala-status shows one of "
            "them; give each its own --actor-id",
            actor,
        )
    join = link.count_join(actor)
    if join is None:  # then only chance keeps its episodes from being played again
        join = secrets.randbits(32) + 1
    start = link.deal(outfit.num_envs(spec), outfit.tasks) if spec.task_size else 0
    if start is None:  # then only chance spreads the tasks over the actors
        start = secrets.randbits(32)
    return OpenRun(spec, reply.digest, weights, join, start), ""


def _finished(run: str) -> str:
    return f"the run {run!r} is finished"


def _read_weights(link: ActorLink, spec: RunSpec) -> VersionedWeights | None:
    """The published weights, if they can be used."""
    reply = link.read_weights()
    try:
        return None if reply is None else unpack_reply(reply, spec)
    except MessageRefused as error:
        log.debug("weights refused: %s", error)
        return None
