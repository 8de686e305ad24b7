"""The learners of one run, which torchrun starts: for impala-train one child like any other.

torchrun begins all of them anew when one is lost, ends with 1 after any failure, and gives each a
session of its own. So the exit code is what the first learner, rank 0, has told by its voice; a
learner is known once it has asked for what is handed to it; and ending means ending all of them.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from impala_redis.common.errors import EXIT_INTERRUPTED, ConfigError, GroupLost
from impala_redis.common.local import children
from impala_redis.workers import credentials, handed, voice
from impala_redis.workers.handover import Handover, Rank

log = logging.getLogger(__name__)

# So often torchrun begins all learners anew before it gives up.
MAX_RESTARTS = 3
# Longer than a learner has to end: torchrun waits for all of them, and kills who stays.
GRACE_MORE_S = 5.0
POLL_S = 0.02
# With these rank 0 ends while the others may still save, or all begin anew: with success, since
# another learner was lost, and asked by torchrun for that reason.
MAY_GO_ON = (0, GroupLost.exit_code, EXIT_INTERRUPTED)


def check_learners(learners: int, engine: str, batch_size: int) -> None:
    """Raises ConfigError: so many learners cannot share a run of this kind; or torchrun runs us."""
    if os.environ.get("WORLD_SIZE", "") not in ("", "1"):
        raise ConfigError(
            "impala-train runs under torchrun, by the variable WORLD_SIZE, and starts torchrun "
            "itself: use impala-train --learners K without torchrun, or unset WORLD_SIZE"
        )
    if learners == 1:
        return
    if engine == "numpy":
        raise ConfigError(
            f"--engine numpy is for one learner, and --learners asks for {learners}; use --engine "
            "auto or torch"
        )
    if batch_size % learners:
        raise ConfigError(
            f"--batch-size {batch_size} cannot be divided among {learners} learners; give "
            f"--learners a divisor of it, or --batch-size {_next_multiple(batch_size, learners)}"
        )


def _next_multiple(number: int, divisor: int) -> int:
    return -(-number // divisor) * divisor


def command(learners: int, program: Sequence[str]) -> list[str]:
    """The command line by which torchrun starts so many of the program on this machine."""
    return [
        *(sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nnodes", "1"),
        *("--nproc-per-node", str(learners), "--max-restarts", str(MAX_RESTARTS)),
        # It would make a folder for its own logs, and leave it there.
        *("--log-dir", os.devnull, "--no-python", "--", *program),
    ]


def _environment(given: Mapping[str, str], grace_s: float, path: Path) -> dict[str, str]:
    """The variables for torchrun, without those that change what its arguments say."""
    kept = {name: value for name, value in given.items() if not name.startswith("PET_")}
    return kept | {
        "OMP_NUM_THREADS": "1",  # as in every learner; or torchrun sets it, with a warning
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(round(grace_s)),
        handed.VARIABLE: str(path),
    }


class Learners:
    """A running torchrun with its learners, as `children.Process`."""

    def __init__(
        self,
        program: Sequence[str],
        learners: int,
        *,
        redis_url: str,
        listener: voice.Listener,
        log_file: Path | None,
        environment: Mapping[str, str],
        grace_s: float,
    ) -> None:
        """Starts them.

        Args:
          program: the command line of one learner.
          learners: how many of them.
          redis_url: the server's address, which each of them gets.
          listener: hears rank 0.
          log_file: for the output of all of them and torchrun's own; None: it is lost.
          environment: their variables.
          grace_s: seconds that they get to end when they are asked to.

        Raises ConfigError, as `Handover`, and OSError.
        """
        self._redis_url, self._listener, self._grace_s = redis_url, listener, grace_s
        self._handover = Handover()
        self._ranks: list[Rank] = []
        self.attempts = 0  # how often rank 0 has begun
        self._was_asked = False
        self._is_over = False
        self._kill_at_s: float | None = None  # learners that torchrun has left; a monotonic clock
        self.returncode: int | None = None
        try:
            self._torchrun = children.spawn(
                command(learners, program),
                log_file=log_file,
                death_signal=signal.SIGTERM,
                environment=_environment(environment, grace_s, self._handover.path),
            )
        except BaseException:
            self._handover.close()
            raise
        self.pid = self._torchrun.pid

    def poll(self) -> int | None:
        """Hands over to learners that have asked; the exit code, None while one of them runs.

        It is rank 0's own. Without it: minus the number of SIGTERM if they were asked to end, else
        torchrun's if no learner has begun, else minus the number of SIGKILL.
        """
        if self.returncode is None:
            self._handover.serve(self.pid, self._hand_to)
            code = self._torchrun.poll()
            if code is None:
                self._stop_beginning_anew()
            if code is not None and self._all_have_ended():
                self._handover.close()
                self.returncode = self._code(code)
                self._listener.started()  # nobody gets its writing end any more
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end of all; the exit code. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("torchrun", timeout or 0.0)
            time.sleep(POLL_S)
        return code

    def terminate(self) -> None:
        """Asks all of them to end: torchrun passes it on."""
        self._was_asked = True
        self._torchrun.terminate()

    def kill(self) -> None:
        """Ends all of them at once (on any thread)."""
        self._was_asked = True
        self._handover.remove_folder()  # one that has just begun finds nobody, and ends
        self._torchrun.kill()
        self._signal_ranks(signal.SIGKILL)

    def _hand_to(self, rank: Rank) -> dict[str, int]:
        self._ranks = [known for known in self._ranks if known.is_running] + [rank]
        given = {credentials.VARIABLE: credentials.pipe_with(self._redis_url)}
        if rank.number == 0:
            self.attempts += 1
            if self.attempts > 1:
                has_failed = self._listener.code not in (None, EXIT_INTERRUPTED)
                why = self._listener.error if has_failed else None
                why = why or "one of them was lost"
                log.warning("the learners begin anew (attempt %d): %s", self.attempts, why)
                self._listener.forget_the_end()
            given[voice.VARIABLE] = os.dup(self._listener.writing)
        return given

    def _stop_beginning_anew(self) -> None:
        """Ends torchrun once rank 0 has ended with an error that a next one would meet, too."""
        self._listener.listen()
        code = self._listener.code
        if code is not None and code not in MAY_GO_ON and not self._is_over:
            self._is_over = True
            self._torchrun.terminate()

    def _all_have_ended(self) -> bool:
        """Whether no learner is left after torchrun, which may have been killed."""
        if not any(rank.is_running for rank in self._ranks):
            return True
        if self._kill_at_s is None:
            self._kill_at_s = time.monotonic() + self._grace_s
            self._signal_ranks(signal.SIGTERM)
        elif time.monotonic() >= self._kill_at_s:
            self._signal_ranks(signal.SIGKILL)
        return False

    def _signal_ranks(self, number: signal.Signals) -> None:
        for rank in list(self._ranks):
            if rank.is_running:
                with contextlib.suppress(OSError):
                    os.kill(rank.pid, number)

    def _code(self, torchruns: int) -> int:
        self._listener.listen()
        told = self._listener.code
        if self._was_asked:
            # They may have been about to begin anew.
            return -signal.SIGTERM if told in (None, GroupLost.exit_code) else told
        # torchrun asks all others to end when one is lost, also when it gives up.
        gave_up = told == EXIT_INTERRUPTED and self.attempts > MAX_RESTARTS
        if told is not None and not gave_up:
            return told
        return torchruns if torchruns == 0 or not self.attempts else -signal.SIGKILL
