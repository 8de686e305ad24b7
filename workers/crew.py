"""The learner and the actors that impala-train runs, each a process of its own."""

import contextlib
import logging
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from impala_redis.common.errors import EXIT_INTERRUPTED, EXIT_LEARNER_KILLED, ActorsLost
from impala_redis.common.files import make_folder, open_to_append
from impala_redis.common.local import children
from impala_redis.common.records.rundir import written_to
from impala_redis.workers import credentials, pacing, process, programs, saying, stopping, voice
from impala_redis.workers.log_files import KEPT_LOG_BYTES, cut_log, last_error_in, silent_end
from impala_redis.workers.plan import Plan
from impala_redis.workers.setting_options import as_arguments
from impala_redis.workers.torchrun import GRACE_MORE_S, Learners
from impala_redis.workers.trust import trusted_by

log = logging.getLogger(__name__)

# Time for the learner to commit, save and write its result when it is asked to stop.
LEARNER_GRACE_S = 20.0
ACTOR_GRACE_S = 5.0
LEARNER_LOG = "learner.log"
LOOK_AT_LOGS_S = 1.0
# Actors that end by themselves are replaced, at most this often within this time.
ACTOR_RESTARTS = 5
RESTARTS_WITHIN_S = 60.0


class Crew:
    """The learner and the actors of this machine; leaving the `with` ends them in order."""

    def __init__(
        self,
        plan: Plan,
        redis_url: str,
        learner_options: list[str],
        actor_options: list[str],
        learners: int = 1,
    ) -> None:
        self._run, self._directory = plan.run, plan.directory
        self._actor_options = list(actor_options)
        for option in trusted_by(plan.config):
            self._actor_options += option
        # Not as an argument, nor in the environment: an address may hold a password.
        self._redis_url = redis_url
        self._environment = _without_addresses(os.environ) | {
            process.STARTED_AT_VARIABLE: str(process.started_at_unix_s()),
        }
        self._logs = plan.directory.path / "logs"
        with written_to(plan.directory.path):
            make_folder(self._logs)
        self._log_starts: dict[str, int] = {}  # bytes of earlier sessions
        self._listeners: dict[str, voice.Listener] = {}
        self._news: list[str] = []
        self._said_by_actors: set[str] = set()  # without the figures in it
        self._are_actors_dismissed = False
        self._logs_due = pacing.every(LOOK_AT_LOGS_S)
        self._restarts = pacing.Budget(ACTOR_RESTARTS, RESTARTS_WITHIN_S)
        self._learners = learners
        self._learner = self._start_learner(
            *("--run", plan.run, "--run-dir", str(plan.directory.path.absolute())),
            *learner_options,
            *settings_for_the_learner(plan),
        )
        self._actors = {
            name: self._start_actor(name)
            for name in (f"actor-{i}" for i in range(plan.config.environment.num_actors))
        }

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_learner()
        self._dismiss_actors()
        for actor in self._actors.values():
            children.end(actor, ACTOR_GRACE_S)
        for name, listener in self._listeners.items():
            if name != "learner":
                listener.close()

    def learner_code(self) -> int | None:
        """The learner's exit code, None while it runs."""
        return self._learner.poll()

    def wait_for_learner(self, timeout_s: float) -> None:
        """Returns when the learner has said something or ended, after `timeout_s` at the latest."""
        if not self._listeners["learner"].wait(timeout_s):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._learner.wait(timeout_s)

    def stop_learner(self) -> int:
        """Ends the learner if it runs; returns its exit code."""
        asked = self._learner.poll() is None
        more_s = GRACE_MORE_S if self._learners > 1 else 0.0
        code = children.end(self._learner, LEARNER_GRACE_S + more_s)
        if code >= 0:
            return code
        # A Ctrl-C or SIGTERM for all of us may reach it before it has handlers of its own.
        asked = asked or -code in stopping.ENDING_SIGNALS
        return EXIT_INTERRUPTED if asked else EXIT_LEARNER_KILLED

    def kill(self) -> None:
        """Ends all of them at once, and says how to go on (on any thread)."""
        for program in (self._learner, *self._actors.values()):
            program.kill()
        path = shlex.quote(str(self._directory.path))
        saying.say_at_once(f"ended at once; continue with --resume --run-dir {path}")

    def news(self) -> list[str]:
        """What the programs have said to the user since the last call."""
        for name in self._listeners:
            self._heard(name)
        news, self._news = self._news, []
        return news

    @property
    def result(self) -> dict[str, Any] | None:
        """What the learner has reached by its own words; None if it has not come to any."""
        return self._heard("learner").result

    def look_after_actors(self) -> None:
        """Replaces actors that ended by themselves, and ends all once the learner has its result.

        Raises ActorsLost: they keep ending.
        """
        if self._is_reached():
            self._dismiss_actors()
            return
        if self._logs_due():
            for name in self._actors:
                if cut_log(self._logs / f"{name}.log"):
                    self._log_starts[name] = min(self._log_starts[name], KEPT_LOG_BYTES)
        for name, actor in list(self._actors.items()):
            code = actor.poll()
            if code is None:
                continue
            why = self._last_error(name, code)
            if not self._restarts.spend():
                raise ActorsLost(f"the actors keep ending ({code}): {why}")
            # With a new name: for some seconds impala-status still lists the old one.
            root, _, count = name.partition(".")
            successor = f"{root}.{int(count or 0) + 1}"
            log.warning("%s ended (%d): %s; %s takes its place", name, code, why, successor)
            del self._actors[name]
            self._listeners.pop(name).close()
            self._actors[successor] = self._start_actor(successor)

    def _is_reached(self) -> bool:
        """Whether the learner needs no actors any more; several of them may begin anew."""
        result = self.result
        return result is not None and (
            self._learners == 1 or result["status"] in ("solved", "finished")
        )

    def _dismiss_actors(self) -> None:
        """Asks the actors to end, once: what is asked twice may end at once."""
        if not self._are_actors_dismissed:
            self._are_actors_dismissed = True
            for actor in self._actors.values():
                actor.terminate()

    def last_words(self, code: int) -> str | None:
        """The learner's own words about its failure; None if it did not fail."""
        if code in (0, EXIT_INTERRUPTED):
            return None
        if code == EXIT_LEARNER_KILLED:
            who = "the learner was killed"
            if self._learners > 1:
                who = (
                    f"the learners were killed; torchrun's words are in {self._logs / LEARNER_LOG}"
                )
            return (
                f"{who}; continue with --resume --run-dir {shlex.quote(str(self._directory.path))}"
            )
        return self._last_error("learner", code)

    def _start_actor(self, name: str) -> children.Process:
        options = ("--run", self._run, "--actor-id", name, *self._actor_options)
        return self._start(name, "actor", *options)

    def _start_learner(self, *options: str) -> children.Process:
        if self._learners == 1:
            return self._start("learner", "learner", *options)
        log_file = self._log_of("learner")
        listener = self._listeners["learner"] = voice.Listener()
        return Learners(
            programs.command("learner", *options),
            self._learners,
            redis_url=self._redis_url,
            listener=listener,
            log_file=log_file,
            environment=self._environment,
            grace_s=LEARNER_GRACE_S,
        )

    def _log_of(self, log_name: str) -> Path | None:
        """The log of a program that starts, None if it cannot have one; notes where it begins."""
        log_file = self._logs / f"{log_name}.log"
        self._log_starts[log_name] = 0
        try:
            with open_to_append(log_file) as file:
                self._log_starts[log_name] = os.fstat(file.fileno()).st_size
        except OSError as error:
            log.warning("%s has no log: %s", log_name, error)
            return None
        return log_file

    def _start(self, log_name: str, program: str, *options: str) -> children.Process:
        log_file = self._log_of(log_name)
        listener = self._listeners[log_name] = voice.Listener()
        with credentials.handing_over(self._redis_url) as address:
            process = programs.start(
                program,
                options,
                log_file=log_file,
                environment=self._environment
                | {voice.VARIABLE: str(listener.writing), credentials.VARIABLE: str(address)},
                pass_fds=[listener.writing, address],
            )
        listener.started()
        return process

    def _heard(self, name: str) -> voice.Listener:
        """A program's listener, after what it has said was taken into the news.

        Actors of one kind say the same but for figures: it comes once.
        """
        listener = self._listeners[name]
        for line in listener.hear():
            kind = re.sub(r"[\d.,]+", "", line)
            if name == "learner" or kind not in self._said_by_actors:
                self._news.append(f"{name}: {line}")
            if name != "learner":
                self._said_by_actors.add(kind)
        return listener

    def _last_error(self, log_name: str, code: int) -> str:
        if said := self._heard(log_name).error:
            return said
        path = self._logs / f"{log_name}.log"
        words = last_error_in(path, self._log_starts[log_name])
        return words or f"{silent_end(code)}; see {path}"


def _without_addresses(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables without those that name another server, or the file of its password."""
    left_out = ("IMPALA_REDIS_URL", "IMPALA_REDIS_PASSWORD_FILE")
    return {name: value for name, value in variables.items() if name not in left_out}


def settings_for_the_learner(plan: Plan) -> list[str]:
    """The settings as arguments, without a network that nobody has chosen."""
    return [
        argument
        for argument in as_arguments(plan.config)
        if plan.chose_network or not argument.startswith("--network=")
    ]
