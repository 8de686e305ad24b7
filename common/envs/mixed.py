"""Environments of several tasks as one vector: each column plays one task.

They look like one `VectorEnvironment`, which each task has for its own columns. All tasks that are
stepped by processes or by EnvPool's threads are stepped at the same time.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.encoding.fitting import Array
from impala_redis.common.envs.single import Info
from impala_redis.common.envs.vector import StepResult, VectorEnvironment, usable_seed
from impala_redis.common.tasks.dealing import TaskNumbers


class MixedEnvironment:
    """N environments of several tasks, which share observations and actions."""

    seed: int  # of the last reset, as the first environment got it

    def __init__(
        self, makers: Sequence[Callable[[int], VectorEnvironment]], tasks: TaskNumbers
    ) -> None:
        """Makes the environments of the tasks that a column plays.

        Args:
          makers: for each task, what makes a number of environments of it.
          tasks: [N] int16 the number of each environment's task.

        Raises UnsupportedEnvironment, or whatever a maker raises.
        """
        self.num_envs, self.tasks = len(tasks), tasks
        self._parts: list[tuple[NDArray[np.intp], VectorEnvironment]] = []
        try:
            for number, make in enumerate(makers):
                columns = np.flatnonzero(tasks == number)
                if len(columns):
                    self._parts.append((columns, make(len(columns))))
        except BaseException:
            self.close()
            raise
        first = self._parts[0][1]
        self.observation, self.action, self.spaces = first.observation, first.action, first.spaces
        self._rows = np.zeros((self.num_envs, *self.observation.shape), self.observation.dtype)

    def reset(self, seed: int) -> NDArray[np.generic]:
        """First observations [N, ...]; each environment gets a seed derived from `seed`."""
        self.seed = usable_seed(seed, self.num_envs)
        begins = 0
        for columns, environment in self._parts:
            self._rows[columns] = environment.reset(self.seed + begins)
            begins += len(columns)
        return self._rows

    def step(self, actions: Array) -> StepResult:
        """Plays actions [N, ...]; the observations are overwritten by the next call.

        Raises EnvironmentFailed: one of them failed, and the others can only be closed.
        """
        rewards = np.empty(self.num_envs, np.float32)
        terminated, truncated, over = np.empty((3, self.num_envs), np.bool_)
        infos: dict[int, Info] = {}
        # What is stepped here is stepped while others work elsewhere.
        for columns, environment in self._parts:
            environment.begin_step(actions[columns])
        for columns, environment in sorted(self._parts, key=_steps_elsewhere):
            step = environment.end_step()
            self._rows[columns], rewards[columns] = step.observations, step.rewards
            terminated[columns], truncated[columns] = step.terminated, step.truncated
            over[columns] = step.over
            infos.update({int(columns[i]): info for i, info in step.infos.items()})
        return StepResult(self._rows, rewards, terminated, truncated, over, infos)

    @property
    def listens(self) -> bool:
        """Whether any environment wants to know how far the training is."""
        return any(environment.listens for _, environment in self._parts)

    def set_progress(self, share: float) -> None:
        """Tells environments that want to know how far the training is, from 0 to 1.

        Raises EnvironmentFailed.
        """
        for _, environment in self._parts:
            environment.set_progress(share)

    def close(self) -> None:
        """Closes the environments, in the middle of a step, too."""
        for _, environment in self._parts:
            environment.close()


def _steps_elsewhere(part: tuple[NDArray[np.intp], VectorEnvironment]) -> bool:
    return part[1].steps_elsewhere
