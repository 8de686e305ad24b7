"""impala-actor: joins a run and plays. It needs the server's address and the run's name, no more.

The loop is `_act`: new weights, an unroll, hand it over. The network belongs to another thread
(`common.acting.courier`), so the environments never wait for Redis or for the learner.
"""

import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

import click

from impala_redis.common.acting.courier import Courier
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks import compression, wire
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.envs.vector import VectorEnvironment, check_module
from impala_redis.common.errors import (
    ConfigError,
    EnvironmentFailed,
    MessageRefused,
    RedisUnreachable,
    UnsupportedEnvironment,
    WaitedTooLong,
)
from impala_redis.common.run.spaces import describe_spaces
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.backoff import Backoff
from impala_redis.common.transport.link import ActorLink
from impala_redis.common.transport.plain_push import PlainActorLink
from impala_redis.workers import pacing, process, stopping
from impala_redis.workers.options import CONTEXT, option, shared
from impala_redis.workers.plan import run_name
from impala_redis.workers.watchdog import Watchdog

log = logging.getLogger(__name__)

# An actor asks for a run that is not there yet after each twentieth of the time that it has waited:
# it joins at once when all programs are started together.
FIRST_POLL_S, LAST_POLL_S, POLL_FACTOR = 0.02, 1.0, 1.05
SAY_SO_AFTER_S = 3.0
FLUSH_S = 2.0
NOTICE_S = 60.0
# An environment that fails is made anew; so many failures within so long are too many.
ENVIRONMENT_FAILURES, FAILURES_WITHIN_S = 3, 60.0


@click.command(context_settings=CONTEXT)
@shared("redis-url", "run")
@option("actor-id", show_default="host-pid", help="Name of this actor; its seed is made from it.")
@option(
    "wait-learner-s",
    type=click.FloatRange(min=0),
    show_default="for ever",
    help="Give up when no learner opens the run for this long.",
)
@shared("env-module")
@option(
    "unroll-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    help="An unroll that takes longer hangs: the actor ends, for its supervisor to start another.",
)
@option(
    "plain-push",
    is_flag=True,
    help="Push by RPUSH alone: for a user of the server that may not call functions.",
)
@shared("wait-redis-s", "log-level")
def main(
    redis_url: str,
    run: str | None,
    actor_id: str | None,
    wait_learner_s: float | None,
    env_module: tuple[str, ...],
    unroll_timeout_s: float,
    plain_push: bool,
    wait_redis_s: float,
    log_level: str,
) -> None:
    """Plays for a run: everything else it learns from the run's spec in Redis."""
    here = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    name = actor_id or f"{here}-{os.getpid()}"[-64:]
    stopping.set_up_logging(log_level, ascii(name)[1:-1])
    process.share_the_interpreter()
    process.keep_memory()
    stop = stopping.StopFlag()
    with stopping.exit_codes(stop), process.one_computing_thread():
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
            raise ConfigError(
                f"{ascii(name)[:80]} cannot name an actor: give --actor-id with 1 to 64 letters, "
                "digits, '.', '_' or '-'"
            )
        link = (PlainActorLink if plain_push else ActorLink)(redis_url, run_name(run), "actor")
        watchdog = Watchdog(unroll_timeout_s, "an environment hangs: an unroll is not done after")
        program = ActorProgram(link, name, env_module, watchdog, stop)
        program.run(wait_redis_s, float("inf") if wait_learner_s is None else wait_learner_s)


class ActorProgram:
    """One actor's life: join a run, act until it is over, and join again."""

    def __init__(
        self,
        link: ActorLink,
        actor: str,
        trusted_modules: tuple[str, ...],
        watchdog: Watchdog,
        stop: stopping.StopFlag,
    ) -> None:
        self._link, self._run, self._actor = link, link.run, actor
        self._trusted_modules, self._watchdog, self._stop = trusted_modules, watchdog, stop
        self._failures = pacing.Budget(ENVIRONMENT_FAILURES, FAILURES_WITHIN_S)
        self._started_unix_s = time.time()

    def run(self, wait_redis_s: float, wait_learner_s: float) -> None:
        """Plays until stopped. Raises WaitedTooLong, RedisUnreachable, RedisDenied and the like."""
        try:
            pacing.wait_for_redis(self._link.ping, self._link.url, wait_redis_s, self._stop)
        except RedisUnreachable:
            if not self._stop():
                raise
        while not self._stop():
            joined = self._wait_for_run(wait_learner_s)
            if joined is not None:
                self._play(*joined)
        self._link.close()

    def _wait_for_run(self, give_up_after_s: float) -> tuple[RunSpec, str, VersionedWeights] | None:
        """The run's spec, its digest and weights, once a learner has published both."""
        began = time.monotonic()
        notice_due = pacing.every(NOTICE_S)
        backoff = Backoff(
            wait=self._stop.wait, first_s=FIRST_POLL_S, longest_s=LAST_POLL_S, factor=POLL_FACTOR
        )
        told = False
        while not self._stop():
            try:
                joined, why = self._look_for_run()
            except RedisUnreachable as error:
                joined, why = None, str(error)
            if joined is not None:
                return joined
            waited_s = time.monotonic() - began
            if waited_s >= give_up_after_s:
                raise WaitedTooLong(f"{why}, and --wait-learner-s is over")
            if (not told and waited_s >= SAY_SO_AFTER_S) or notice_due():
                log.info("waiting: %s", why)
                told = True
            backoff.pause()
        return None

    def _look_for_run(self) -> tuple[tuple[RunSpec, str, VersionedWeights] | None, str]:
        """What there is to join, or why there is nothing yet."""
        reply = self._link.read_spec()
        if reply is None:
            return None, f"no learner has opened the run {self._run!r}"
        if reply.state != "running":
            return None, f"the run {self._run!r} is finished"
        spec = RunSpec.from_json(reply.json)
        if spec.compression != "none":
            compression.check_installed()
        fresh = self._read_weights(spec)
        if fresh is None:
            return None, "the learner has published no weights that fit"
        if self._link.is_listed(self._actor):
            log.warning(
                "another actor calls itself %s: both play the same episodes; give each its own "
                "--actor-id",
                self._actor,
            )
        return (spec, reply.digest, fresh), ""

    def _read_weights(self, spec: RunSpec) -> VersionedWeights | None:
        reply = self._link.read_weights()
        if reply is None or not reply.intact:
            return None
        try:
            return VersionedWeights(*wire.unpack_weights(reply.payload, spec))
        except MessageRefused as error:
            log.debug("weights refused: %s", error)
            return None

    def _play(self, spec: RunSpec, digest: str, fresh: VersionedWeights) -> None:
        """Joins and acts until the run is over or the actor is stopped."""
        incarnation = secrets.randbits(62)
        with self._watchdog.watching():
            actor = Actor(spec, self._make_environment(spec), self._actor, incarnation)
        courier = Courier(
            self._link,
            spec,
            digest,
            f"{self._actor}#{incarnation}",
            lambda: self._figures(actor, courier),
        )
        self._beaten = (time.monotonic(), 0)
        courier.start(fresh)
        actor.policy.load(*fresh)
        log.info(
            "joined %s: %d x %s, weights version %d",
            self._run,
            spec.envs_per_actor,
            spec.env,
            fresh.version,
        )
        try:
            while not self._stop() and not courier.over:
                try:
                    self._act(actor, courier, spec.max_policy_age_s)
                except EnvironmentFailed as error:
                    self._repair(actor, spec, error)
        finally:
            courier.close(FLUSH_S)
            with self._watchdog.watching():
                actor.close()
        if courier.failure:
            raise courier.failure

    def _act(self, actor: Actor, courier: Courier, max_policy_age_s: float) -> None:
        """Weights, unroll, hand over."""
        while not self._stop() and not courier.over:
            fresh = courier.take_weights()
            if fresh is not None:
                actor.policy.load(*fresh)
            if courier.silent_s > max_policy_age_s:
                log.warning("paused: nothing from Redis for %.0f s", courier.silent_s)
                self._pause_until(lambda: courier.over or courier.silent_s < max_policy_age_s)
                continue
            with self._watchdog.watching():
                block = actor.unroll()
            courier.hand_over(block)

    def _repair(self, actor: Actor, spec: RunSpec, error: EnvironmentFailed) -> None:
        """Makes the environments anew, what they had begun is lost. Raises the last error."""
        while self._failures.spend():
            log.warning("%s; made anew, the unroll is lost", error)
            try:
                with self._watchdog.watching():
                    actor.close()
                    actor.begin(self._make_environment(spec))
            except EnvironmentFailed as again:
                error = again
            else:
                return
        raise error

    def _pause_until(self, condition: Callable[[], bool]) -> None:
        while not self._stop() and not condition():
            self._stop.wait(0.2)

    def _make_environment(self, spec: RunSpec) -> VectorEnvironment:
        check_module(spec.env, self._trusted_modules)
        environment = VectorEnvironment(
            spec.env, spec.envs_per_actor, frame_stack=spec.observation.frame_stack
        )
        here, there = (environment.observation, environment.action), (spec.observation, spec.action)
        if here != there:
            raise UnsupportedEnvironment(
                f"{spec.env} is another one on this machine: {describe_spaces(*here)} here, and "
                f"{describe_spaces(*there)} in the run; install the learner's version of it"
            )
        return environment

    def _figures(self, actor: Actor, courier: Courier) -> dict[str, Any]:
        """What the heartbeat tells."""
        now = time.monotonic()
        last, last_frames = self._beaten
        frames_per_s = (actor.frames - last_frames) / max(now - last, 1e-9)
        self._beaten = (now, actor.frames)
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_unix_s": round(self._started_unix_s, 3),
            "frames": actor.frames,
            "frames_per_s": round(frames_per_s),
            "episodes": actor.episodes,
            "weights_version": actor.policy.version,
            **courier.books(),
            "weights_refused": courier.weights_refused,
        }


if __name__ == "__main__":
    main()
