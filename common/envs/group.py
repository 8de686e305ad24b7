"""Some environments in a process of their own, which look to Gymnasium like one."""

import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from impala_redis.common.errors import EnvironmentFailed, ImpalaError
from impala_redis.common.local import children

Rows = NDArray[np.generic]
# Whether the environment's own code raised it; the sentence; the frames.
Failure = tuple[bool, str, str]


class Several(Protocol):
    """Environments that are stepped one after another, as `VectorEnvironment` has them."""

    @property
    def listens(self) -> bool:
        """Whether they want to know how far the training is."""

    def reset(self, seed: int) -> Rows:
        """Begins new episodes."""

    def step(self, actions: Any) -> Any:
        """Plays actions."""

    def set_progress(self, share: float) -> None:
        """Tells them how far the training is."""

    def close(self) -> None:
        """Closes them."""


class Group(gymnasium.Env[Rows, Rows]):
    """Some environments in a process of their own, which look like one.

    No error leaves it but in an info: Gymnasium would pickle it, and wait for ever for one that
    cannot be pickled.
    """

    def __init__(
        self, make: Callable[..., Several], num_envs: int, rows: Rows, parent: int
    ) -> None:
        """Makes no environment yet: Gymnasium also makes a group in the actor's own process.

        Args:
          make: makes as many as its `num_envs` says.
          num_envs: how many they are.
          rows: zeros [at least num_envs, ...] of the rows' type and shape.
          parent: the number of the actor's process.
        """
        self._make, self._num_envs, self._rows, self._parent = make, num_envs, rows, parent
        self._several: Several | None = None
        self.observation_space = spaces.Box(0, 1, rows.shape, cast(Any, rows.dtype))
        self.action_space = spaces.Box(0, 1, (len(rows),))

    def begin(self) -> bool | Failure:
        """Makes the environments; whether one of them wants to know of the training's progress."""
        tie = children.tie_to_parent(signal.SIGKILL, self._parent)
        if tie is not None:
            tie()
        # A Ctrl-C in a terminal is for the actor, which closes its environments.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        self._several, failure = _tried(partial(self._make, num_envs=self._num_envs))
        return failure or (self._several is not None and self._several.listens)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Rows, dict[str, Any]]:
        """Begins new episodes."""
        assert self._several is not None and seed is not None
        rows, failure = _tried(partial(self._several.reset, seed))
        if rows is None:
            return self._rows, {"failure": failure}
        self._rows[: self._num_envs] = rows
        return self._rows, {}

    def step(self, actions: Rows) -> tuple[Rows, Any, Any, Any, dict[str, Any]]:
        """Plays actions; rewards and ends are as long as the rows."""
        assert self._several is not None
        result, failure = _tried(partial(self._several.step, actions[: self._num_envs]))
        rewards = np.zeros(len(self._rows), np.float32)
        terminated, truncated = np.zeros((2, len(self._rows)), np.bool_)
        if result is None:
            return self._rows, rewards, terminated, truncated, {"failure": failure}
        self._rows[: self._num_envs] = result.observations
        rewards[: self._num_envs] = result.rewards
        terminated[: self._num_envs] = result.terminated
        truncated[: self._num_envs] = result.truncated
        infos = tuple((i, dict(numbers)) for i, numbers in result.infos.items())
        return self._rows, rewards, terminated, truncated, {"infos": infos} if infos else {}

    def set_progress(self, share: float) -> Failure | None:
        """Tells the environments."""
        assert self._several is not None
        return _tried(partial(self._several.set_progress, share))[1]

    def close(self) -> None:
        """Closes the environments."""
        if self._several is not None:
            self._several.close()


def _tried(call: Callable[[], Any]) -> tuple[Any, Failure | None]:
    """What a call returns, or None and its failure."""
    try:
        return call(), None
    except ImpalaError as error:
        is_own = isinstance(error, EnvironmentFailed)
        return None, (is_own, str(error), getattr(error, "frames", ""))
