"""impala-actor: joins a run and plays. It needs the server's address and the run's name, no more.

Its loop is `ActorProgram._act`. The environments never wait for Redis. They wait for the learner in
a run whose queue policy is to block, and when there has been none for long:

    main thread                        courier (common.acting.courier)    watchdog
    -----------                        -------------------------------    --------
    waits for a run, starts courier
    loads the newest weights  <------  reads new versions from Redis      ends the process if
    plays an unroll                    sends a heartbeat every second     a step takes longer than
    hands the block over  -- ring -->  pushes the oldest block            --step-timeout-s; says how
    stops, closes the courier          flushes the ring, leaves           long a block takes

The main thread owns environments and policy. It talks to Redis only while no courier runs.
"""

import logging
import os
import re
import secrets
import socket
import time
from typing import Any

import click

from impala_redis.common.acting.courier import Courier
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.errors import (
    ConfigError,
    EnvironmentFailed,
    RedisUnreachable,
)
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.plain_push import PlainActorLink
from impala_redis.workers import pacing, process, stopping
from impala_redis.workers.absence import LearnerAbsence
from impala_redis.workers.actor_options import actor_options
from impala_redis.workers.command import Program
from impala_redis.workers.joining import OpenRun, wait_for_run
from impala_redis.workers.options import CONTEXT, shared
from impala_redis.workers.outfit import Outfit
from impala_redis.workers.pace import UnrollPace, closing, making
from impala_redis.workers.plan import run_to_join
from impala_redis.workers.watchdog import STEP_TIMEOUT_S, Watchdog

log = logging.getLogger(__name__)

# For what the ring holds when the actor stops.
FLUSH_S = 2.0
# How often an actor that does not play looks whether it may.
LOOK_S = 0.2
# Environments that fail are replaced, at most this often within this time.
ENVIRONMENT_FAILURES, FAILURES_WITHIN_S = 3, 60.0


@click.command(cls=Program, context_settings=CONTEXT)
@shared("redis-url", "that-run")
@actor_options
def main(
    redis_url: str,
    run: str | None,
    actor_id: str | None,
    wait_learner_s: float | None,
    max_learner_away_s: float,
    when_learner_away: str,
    exit_with_run: bool,
    env_module: tuple[str, ...],
    network_module: tuple[str, ...],
    step_timeout_s: float | None,
    unroll_timeout_s: float | None,
    plain_push: bool,
    device: str,
    envs: int | None,
    env_threads: int | None,
    env_processes: int | None,
    task: tuple[str, ...],
    wait_redis_s: float,
    log_level: str,
) -> None:
    """Plays for a run: everything else it learns from the run's spec in Redis."""
    here = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    name = actor_id or f"{here}-{os.getpid()}"[-64:]
    stopping.set_up_logging(log_level, name)
    process.share_the_interpreter()
    process.keep_memory()
    stop = stopping.StopFlag()
    stop.end_within_s = pacing.END_WITHIN_S  # whatever its environments are in
    with stopping.ending_in_time(), stopping.exit_codes(stop), process.one_computing_thread():
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
            raise ConfigError(
                f"{name[:80]!r} cannot name an actor: give --actor-id with 1 to 64 letters, "
                "digits, '.', '_' or '-'"
            )
        trusted = (env_module, network_module)
        outfit = Outfit(*trusted, device, envs, env_threads, env_processes, task).checked()
        link = (PlainActorLink if plain_push else ActorLink)(redis_url, run_to_join(run), "actor")
        watchdog = Watchdog(_step_timeout_s(step_timeout_s, unroll_timeout_s))
        absence = LearnerAbsence(link.run, max_learner_away_s, when_learner_away == "end")
        program = ActorProgram(link, name, outfit, watchdog, absence, stop)
        wait_s = float("inf") if wait_learner_s is None else wait_learner_s
        program.run(wait_redis_s, wait_s, exit_with_run)


def _step_timeout_s(step_timeout_s: float | None, unroll_timeout_s: float | None) -> float:
    """The bound of a step, in seconds, by its present name or by that of release 0.1."""
    if unroll_timeout_s is None:
        return STEP_TIMEOUT_S if step_timeout_s is None else step_timeout_s
    log.warning("--unroll-timeout-s is now --step-timeout-s: it bounds a step, not an unroll")
    return unroll_timeout_s if step_timeout_s is None else step_timeout_s


class ActorProgram:
    """One actor's life: join a run, act until it is over, and join again."""

    def __init__(
        self,
        link: ActorLink,
        name: str,
        outfit: Outfit,
        watchdog: Watchdog,
        absence: LearnerAbsence,
        stop: stopping.StopFlag,
    ) -> None:
        self._link, self._name = link, name
        self._outfit, self._watchdog, self._stop = outfit, watchdog, stop
        self._absence = absence
        self._failures = pacing.Budget(ENVIRONMENT_FAILURES, FAILURES_WITHIN_S)
        self._shown_frames: set[tuple[str, ...]] = set()  # the places in them
        self._started_unix_s = time.time()
        self._start = 0  # of the places that the actor has in the schedule of the run's tasks
        self._last_beat = (time.monotonic(), 0)  # its time, and the frames until then

    def run(self, wait_redis_s: float, wait_learner_s: float, exit_with_run: bool) -> None:
        """Plays until stopped, or until a run that was joined is finished if `exit_with_run`.

        Raises WaitedTooLong, RedisUnreachable, RedisDenied and the like.
        """
        try:
            pacing.wait_for_redis(
                lambda: self._link.require("impala-actor"), self._link.url, wait_redis_s, self._stop
            )
        except RedisUnreachable:
            if not self._stop():
                raise
        has_joined = False
        while not self._stop():
            until_finished = exit_with_run and has_joined
            patience = (wait_learner_s, self._stop, self._outfit, until_finished)
            run = wait_for_run(self._link, self._name, *patience)
            has_joined = True
            if run is None or (self._play(run) and exit_with_run):
                break
        self._link.close()

    def _play(self, run: OpenRun) -> bool:
        """Joins, and acts until the run is over or the actor is stopped; whether it is finished."""
        actor, courier = self._join(run)
        try:
            self._act(actor, courier, run.spec)
        finally:
            courier.close(FLUSH_S)
            with self._watchdog.watching(closing(self._outfit.num_envs(run.spec))):
                actor.close()
        if courier.failure:
            raise courier.failure
        if courier.run_finished:
            log.info("the run %s is finished", self._link.run)
        return courier.run_finished

    def _act(self, actor: Actor, courier: Courier, spec: RunSpec) -> None:
        """The loop: the newest weights, an unroll, hand it over."""
        pace = UnrollPace(spec, self._outfit.num_envs(spec), lambda: actor.progress)
        while not self._stop() and not courier.over:
            if courier.silent_s > spec.max_policy_age_s:
                self._pause(courier, spec.max_policy_age_s)
                continue
            if self._absence.keeps_from_playing(courier.learner_away_s):
                self._stop.wait(LOOK_S)
                continue
            if not courier.wait_for_room(LOOK_S):
                continue
            weights = courier.weights.take()
            if weights is not None:
                actor.policy.load(weights.version, weights.weights)
            try:
                with self._watchdog.watching(pace):
                    if weights is not None:
                        actor.set_progress(weights.progress)
                    block = actor.unroll()
            except EnvironmentFailed as error:
                self._stop.take_signals()
                if not self._stop():  # else the signal may have been for its processes, too
                    self._repair(actor, spec, error)
            else:
                courier.hand_over(block)
            self._stop.take_signals()

    def _join(self, run: OpenRun) -> tuple[Actor, Courier]:
        """Makes the environments and starts the courier."""
        spec, incarnation = run.spec, secrets.randbits(62)
        with self._watchdog.watching(making(self._outfit.num_envs(spec))):
            share = run.weights.progress
            who = (self._name, incarnation, run.join, run.start)
            actor = self._outfit.make_actor(spec, *who, share)
        self._start = run.start
        self._stop.take_signals()
        courier = Courier(
            self._link,
            spec,
            run.digest,
            self._name,
            lambda: self._figures(actor, courier),
        )
        self._last_beat = (time.monotonic(), actor.frames)
        courier.start(run.weights)
        actor.policy.load(run.weights.version, run.weights.weights)
        log.info(
            "joined %s: %d x %s, weights version %d, the environments' seeds begin at %d",
            *(self._link.run, self._outfit.num_envs(spec), self._outfit.told(spec)),
            *(run.weights.version, actor.seed),
        )
        return actor, courier

    def _repair(self, actor: Actor, spec: RunSpec, error: EnvironmentFailed) -> None:
        """Replaces the environments; the begun unroll is lost. Raises the last error."""
        while self._failures.spend():
            self._show_frames(error)
            log.warning("%s; made anew, the unroll is lost", error)
            try:
                with self._watchdog.watching(making(self._outfit.num_envs(spec))):
                    actor.close()
                    actor.begin(self._outfit.make_environment(spec, self._start))
            except EnvironmentFailed as again:
                error = again
            else:
                return
        self._show_frames(error)
        raise error

    def _show_frames(self, error: EnvironmentFailed) -> None:
        """Leaves the frames of each different error in the log once; the error keeps none."""
        places = tuple(line for line in error.frames.splitlines() if line.startswith("  File "))
        if error.frames and places not in self._shown_frames:
            self._shown_frames.add(places)
            log.warning("an error of the environment's own code:\n%s", error.frames)
        error.frames = ""

    def _pause(self, courier: Courier, max_policy_age_s: float) -> None:
        """Waits for Redis: the policy is too old to act with."""
        log.warning("paused: nothing from Redis for %.0f s", courier.silent_s)
        while not (courier.over or courier.silent_s < max_policy_age_s):
            if self._stop.wait(LOOK_S):
                break

    def _figures(self, actor: Actor, courier: Courier) -> dict[str, Any]:
        """The figures of a heartbeat; called on the courier's thread."""
        now, (last, last_frames) = time.monotonic(), self._last_beat
        frames_per_s = (actor.frames - last_frames) / max(now - last, 1e-9)
        self._last_beat = (now, actor.frames)
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_unix_s": round(self._started_unix_s, 3),
            "frames": actor.frames,
            "frames_per_s": round(frames_per_s),
            "episodes": actor.episodes,
            "weights_version": actor.policy.version,
            "published_version": courier.published_version,
            **courier.books(),
            "waited_s": round(courier.waited_s, 1),
            "weights_refused": courier.weights.refused,
        }


if __name__ == "__main__":
    main()
