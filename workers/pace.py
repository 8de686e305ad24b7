"""How fast a call of the environments goes on, as another thread sees it."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from impala_redis.common.run.spec import RunSpec
from impala_redis.workers import voice

if TYPE_CHECKING:
    from impala_redis.common.acting.unroll import Progress

log = logging.getLogger(__name__)

# A block that takes longer is worth a word: until it is there, the run has no frames. So is a call
# that does not come back for long.
LONG_BLOCK_S, LONG_CALL_S = 10.0, 6.0


class Pace:
    """One call of N environments, such as their making: it is done, or it is not."""

    so_far = ""  # what a complaint adds
    remedy = (
        "they come one after another, so lower --envs-per-actor, or an actor's own --envs, to wait "
        "less"
    )

    def __init__(self, what: str) -> None:
        """`what` is the call, in words."""
        self.what = what
        self._times = 0  # how often it has begun
        self._has_waited = False

    def begin(self) -> None:
        """Notes that the call begins, on the thread that makes it."""
        self._times += 1

    def look(self) -> Any:
        """A value that changes whenever something has come back."""
        return self, self._times

    def note_silence(self, silent_s: float) -> None:
        """Says once that nothing has come back for long."""
        if silent_s >= LONG_CALL_S and not self._has_waited:
            self._has_waited = True
            say(f"{self.what} has taken {_seconds(silent_s)} and is not done; {self.remedy}")


class UnrollPace(Pace):
    """The steps of an actor's unrolls; says once how long a block takes, if that is long."""

    def __init__(self, spec: RunSpec, num_envs: int, progress: Callable[[], "Progress"]) -> None:
        """Prepares.

        Args:
          spec: of the run that is played for.
          num_envs: how many environments the actor has.
          progress: of the unroll under way; called on another thread than the actor's.
        """
        super().__init__(f"a step of {_environments(num_envs)}")
        self._spec, self._num_envs, self._progress = spec, num_envs, progress
        self._first: Progress | None = None  # of this unroll, as it was first seen
        self._step_s: float | None = None
        self._has_said = False

    def look(self) -> Any:
        """A value that changes with each step; a long block is told as soon as it is known."""
        done, took_s = now = self._progress()
        self._measure(now)
        block_s = (self._step_s or 0.0) * self._spec.unroll_length
        if block_s > LONG_BLOCK_S and not self._has_said:
            self._has_said = True
            say(self._words(block_s))
        return self, self._times, done, took_s

    @property
    def so_far(self) -> str:  # type: ignore[override]
        """What is known of the steps before, in words."""
        if self._step_s is None:
            return ""
        return f" (those before took {_seconds(self._step_s)} each, a block has {self._size()})"

    def _measure(self, now: "Progress") -> None:
        """Sets the time of a step, without that of the first: it may be much longer."""
        done, took_s = now
        if not done:
            return
        first = self._first
        if first is None or first[0] > done:  # another unroll
            self._first = now
            if took_s > LONG_BLOCK_S and self._step_s is None:
                self._step_s = took_s / done
        elif done > first[0]:
            self._step_s = (took_s - first[1]) / (done - first[0])

    def _words(self, block_s: float) -> str:
        assert self._step_s is not None
        return (
            f"{self.what} takes {_seconds(self._step_s)}, so a block of {self._size()} steps takes "
            f"{_seconds(block_s)}; for sooner blocks lower --envs-per-actor (or an actor's own "
            "--envs) or --unroll-length, or start more actors"
        )

    def _size(self) -> str:
        return f"{self._num_envs} x {self._spec.unroll_length}"


def say(words: str) -> None:
    """Leaves a line in the log, and on the terminal of impala-train."""
    log.warning("%s", words)
    voice.tell(log=words)


def making(num_envs: int) -> Pace:
    """The making of N environments and their first reset, which share one bound."""
    return Pace(f"the making and first reset of {_environments(num_envs)}")


def closing(num_envs: int) -> Pace:
    """The end of N environments."""
    return Pace(f"the closing of {_environments(num_envs)}")


def _environments(number: int) -> str:
    return f"{number} environment{'s' * (number != 1)}"


def _seconds(time_s: float) -> str:
    return f"{time_s:,.0f} s" if time_s >= 10 else f"{time_s:.2g} s"
