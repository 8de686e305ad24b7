"""How a learner opens its run: the checks, the checkpoint to go on from, the lease."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from impala_redis.common.blocks import compression, wire
from impala_redis.common.errors import (
    EXIT_INTERRUPTED,
    RunHeld,
    SpecMismatch,
    UnsupportedEnvironment,
)
from impala_redis.common.games.atari_rules import with_full_actions
from impala_redis.common.run.architecture import advice_on_pictures
from impala_redis.common.run.config import Config
from impala_redis.common.run.own_network import OwnNetwork
from impala_redis.common.run.spec import RunSpec, make_spec
from impala_redis.common.server.address import cli_command
from impala_redis.common.server.suitability import check_room
from impala_redis.common.tasks.scoring import advice_on_references
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.user_code.parts import imported
from impala_redis.workers import beginning, probing, process, voice
from impala_redis.workers.beginning import Beginning
from impala_redis.workers.plan import Plan
from impala_redis.workers.stopping import StopFlag
from impala_redis.workers.terms import Terms

log = logging.getLogger(__name__)

# A lease that another learner holds is looked at again after this time.
LEASE_POLL_S = 0.2


def prepare(plan: Plan, resume: bool, stop: StopFlag) -> Beginning:
    """Takes the run directory and tries the environment; returns what the learner begins with.

    Raises RunDirectoryError, UnsupportedEnvironment, CheckpointError or SpecMismatch.
    """
    plan.directory.prepare("learner", resume)
    saved = beginning.saved_in(plan.directory) if resume else None
    wanted = plan.config.environment
    tasks = with_full_actions(wanted.tasks, wanted.env_kwargs)
    config = plan.config.replace({"tasks": tasks}) if tasks else plan.config
    without_mask = saved is not None and not saved.spec.observation.mask  # and goes on so
    found = probing.spaces_of_all(config.environment, stop, without_mask)
    spec = make_spec(plan.run, config, *found, find_out=partial(_tried, plan.config))
    try:
        RunSpec.from_json(spec.to_json())  # this is how actors read it
        spec.parameter_shapes()
    except SpecMismatch as error:
        raise UnsupportedEnvironment(f"no actor could join {wanted.env}: {error}") from error
    for advice in filter(None, _advice(plan, spec)):
        log.warning("%s", advice)
        voice.tell(log=advice)
    if spec.compression != "none":
        compression.check_installed()
    if saved:
        return beginning.resumed(spec, saved)
    return beginning.begun_from(spec, plan.init_from) if plan.init_from else Beginning(spec)


def _advice(plan: Plan, spec: RunSpec) -> Iterator[str]:
    """What nobody has chosen and may be wrong; empty texts for nothing."""
    if not plan.chose_network:
        yield advice_on_pictures(spec)
    if plan.config.training.stop_at_score is not None:
        yield advice_on_references(spec.tasks)


def _tried(config: Config, spec: RunSpec) -> OwnNetwork:
    """The outside of a network of the user's own, which is tried. Raises ConfigError."""
    imported(config.model.network, "network")  # a file, of which only the module travels
    # Late: it imports torch.
    with process.keeping_all():
        from impala_redis.common.networks.own_probe import find_out
    return find_out(spec)


def most_in_flight(spec: RunSpec, batch_size: int, batches: int) -> int:
    """The blocks that a learner has claimed and not committed, at most.

    Those of the last claim, and of the next while they are copied, are no more than fill the
    `batches` that go round in the learner, and a block across two of them.
    """
    return batches * -(-batch_size // spec.envs_per_actor) + 1


def take(
    link: LearnerLink,
    spec: RunSpec,
    in_flight: int,
    terms: Terms,
    with_retries: Callable[[Callable[[], Any]], Any],
    stop: StopFlag,
    predecessor: str | None = None,
) -> None:
    """Checks the server and opens the run, each request with retries.

    `in_flight` blocks are claimed and not committed at most. A `predecessor` that holds the lease
    is known to be gone. Raises UnsuitableServer, RunHeld, RedisUnreachable or RedisDenied, and
    SystemExit if stopped.
    """
    block_bytes = wire.block_nbytes(spec, spec.envs_per_actor)
    log.info(
        "a block of %d x %d steps takes %s bytes at most, %s a step%s",
        *(spec.envs_per_actor, spec.unroll_length, f"{block_bytes:,}"),
        f"{block_bytes / spec.envs_per_actor / spec.unroll_length:,.0f}",
        "" if spec.compression == "none" else f" before {spec.compression}",
    )
    check_room(
        with_retries(lambda: link.check_server(terms.allow_eviction)),
        link.url,
        block_bytes=block_bytes,
        weights_bytes=wire.weights_nbytes(spec),
        blocks=spec.queue_blocks + in_flight,
    )
    holder = with_retries(link.current_holder)
    gone = holder is not None and (holder == predecessor or process.is_dead_here(holder))
    if gone:
        log.warning("taking the run over from %s, which is gone", holder)
    terms = terms._replace(take_over=terms.take_over or gone)
    abandoned = open_when_free(
        lambda: with_retries(lambda: link.open(terms.take_over)), terms, stop
    )
    queue = f"{cli_command(link.url)} LLEN '{link.keys.trajectories}'"
    log.info("run %s, epoch %d; queue: %s", link.run, link.epoch, queue)
    if abandoned:
        log.warning("%d blocks that the last learner had claimed are abandoned", abandoned)


def open_when_free(opened: Callable[[], int], terms: Terms, stop: StopFlag) -> int:
    """What `opened` returns, once no other learner holds the run.

    After a crash in another container, or on another machine, the lease of the one before lies
    there until it ends. A learner that lives is known by its renewals: about one a second.

    Raises the last RunHeld: the lease is renewed, or --wait-lease-s is over.
    """
    began, least_left_s = time.monotonic(), math.inf
    while True:
        try:
            return opened()
        except RunHeld as held:
            if terms.wait_lease_s is not None:
                given_up = time.monotonic() - began >= terms.wait_lease_s
            else:  # what is left of a lease only grows when it is renewed
                given_up = held.left_s > least_left_s or held.left_s < 0
            if given_up:
                raise
            if least_left_s == math.inf:
                log.warning("waiting for the lease of %s, %.1f s left", held.holder, held.left_s)
            least_left_s = min(least_left_s, held.left_s)
        if stop.wait(LEASE_POLL_S):
            raise SystemExit(EXIT_INTERRUPTED)
