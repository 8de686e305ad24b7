"""Environments in several processes: each of these steps some of them, one after another.

Gymnasium's AsyncVectorEnv starts the processes, one for each environment that it is given, and its
shared memory carries the observations. What it is given here are groups: each is N/K environments
that look like one, whose observation is their rows as they travel. So Gymnasium sees nothing but
one box of numbers, whatever the space, and encoding is shared out among the processes.

    actor: InProcesses -- AsyncVectorEnv == pipes, shared memory == Group -- VectorEnvironment
"""

import contextlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from numpy.typing import NDArray

from impala_redis.common.envs.group import Group, Rows, Several
from impala_redis.common.envs.single import Info
from impala_redis.common.errors import EnvironmentFailed, UnsupportedEnvironment

# A process of which nothing comes any more is gone by then, and its exit code is known.
_GONE_WITHIN_S = 1.0
# Forked: it takes no time, and leaves nothing behind. Elsewhere the system's own way is safer.
_HOW = "fork" if sys.platform == "linux" else None

# Rows [N, ...], rewards [N], terminated [N], truncated [N], the infos of the episodes that ended.
Outcome = tuple[Rows, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Mapping[int, Info]]


class _Started(AsyncVectorEnv):
    """Gymnasium's vector; where not all processes can be started, it leaves none."""

    def __init__(self, groups: list[Callable[[], Group]]) -> None:
        """Starts a process for each group. Raises OSError."""
        off = AutoresetMode.DISABLED  # the groups reset by themselves
        try:
            super().__init__(groups, copy=False, context=_HOW, autoreset_mode=off)
        except OSError:
            for process in getattr(self, "processes", ()):
                if process.pid is not None:
                    process.kill()
                    process.join()
            for pipe in getattr(self, "parent_pipes", ()):
                pipe.close()
            raise


class InProcesses:
    """N environments in K processes; an actor's end, whatever kind it is, ends these."""

    def __init__(
        self,
        make: Callable[..., Several],
        env_id: str,
        num_envs: int,
        num_processes: int,
        row: Rows,
    ) -> None:
        """Starts the processes, and makes the environments in them.

        Args:
          make: makes as many environments as its `num_envs` says.
          env_id: for messages.
          num_envs: N.
          num_processes: K, from 1 to N.
          row: an observation's type and shape.

        Raises UnsupportedEnvironment or EnvironmentFailed.
        """
        self._env_id, self._num_envs = env_id, num_envs
        few, more = divmod(num_envs, num_processes)
        sizes = [few + (k < more) for k in range(num_processes)]
        self._starts = np.cumsum([0, *sizes])[:-1].tolist()  # the first environment of each group
        self._longest = max(sizes)
        # [K, longest] True where there is an environment; else groups are of one length.
        self._filled = np.arange(self._longest) < np.array(sizes)[:, None]
        rows = np.zeros((self._longest, *row.shape), row.dtype)
        self._is_gone, self._is_stepping = True, False
        self._env = self._started([partial(Group, make, size, rows, os.getpid()) for size in sizes])
        self._is_gone = False
        with self._answering("being made"):
            begun = self._env.call("begin")
        try:
            self._raise_first(begun)
        except UnsupportedEnvironment:
            self.close()
            raise
        self.listens = any(one is True for one in begun)

    def _started(self, groups: list[Callable[[], Group]]) -> AsyncVectorEnv:
        """The processes, one for each group. Raises UnsupportedEnvironment: there is no room."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's, of a fork beside threads
                return _Started(groups)
        except OSError as error:
            raise UnsupportedEnvironment(
                f"the {len(groups)} processes of {self._env_id} cannot be started: "
                f"{error.strerror or error}; lower --env-processes, or raise the system's limits"
            ) from error

    def reset(self, seed: int) -> Rows:
        """Begins new episodes; environment i gets seed + i. Rows [N, ...]."""
        with self._answering("reset"):
            rows, infos = self._env.reset(seed=[seed + start for start in self._starts])
        self._raise_first(infos.get("failure", ()))
        return self._together(rows)

    def begin_step(self, actions: Rows) -> None:
        """Lets all processes play actions [N, ...]. Raises EnvironmentFailed: one is gone."""
        shared = np.zeros((*self._filled.shape, *actions.shape[1:]), actions.dtype)
        shared[self._filled] = actions
        with self._answering("step"):
            self._env.step_async(shared)
        self._is_stepping = True

    def end_step(self) -> Outcome:
        """What that brought. Raises EnvironmentFailed or UnsupportedEnvironment."""
        self._is_stepping = False
        with self._answering("step"):
            rows, rewards, terminated, truncated, infos = self._env.step_wait()
        self._raise_first(infos.get("failure", ()))
        found = {
            self._starts[k] + i: numbers
            for k, group in enumerate(infos.get("infos", ()))
            for i, numbers in group or ()
        }
        return (
            self._together(rows),
            rewards[self._filled].astype(np.float32),
            terminated[self._filled],
            truncated[self._filled],
            found,
        )

    def set_progress(self, share: float) -> None:
        """Tells all environments how far the training is."""
        with self._answering("set_progress"):
            failures = self._env.call("set_progress", share)
        self._raise_first(failures)

    def close(self) -> None:
        """Closes the environments, once a step that was begun is done, and ends the processes."""
        if self._is_gone:
            return
        with self._answering("close"):
            if self._is_stepping:
                self._env.step_wait()
            self._env.close()
        self._is_gone = True

    def _together(self, rows: Rows) -> Rows:
        """Rows [K, longest, ...] as rows [N, ...]; of shared memory where no row is left out."""
        if self._filled.all():
            return rows.reshape(self._num_envs, *rows.shape[2:])
        return rows[self._filled]

    def _raise_first(self, failures: Any) -> None:
        """Raises the first of the failures that the groups have told, if there is one."""
        for failure in failures:
            if isinstance(failure, tuple):
                is_own, sentence, frames = failure
                error = (EnvironmentFailed if is_own else UnsupportedEnvironment)(sentence)
                error.frames = frames
                raise error

    @contextlib.contextmanager
    def _answering(self, doing: str) -> Iterator[None]:
        """Turns the end of a process into EnvironmentFailed, and ends the others then."""
        try:
            yield
        except (EOFError, OSError) as error:
            how = self._end_all()
            raise EnvironmentFailed(f"{self._env_id} failed in {doing}: {how}") from error

    def _end_all(self) -> str:
        """Ends all processes at once; how the first of them ended, in words."""
        self._is_gone = self._env.closed = True  # Gymnasium would wait for answers
        codes: list[int | None] = []
        deadline = time.monotonic() + _GONE_WITHIN_S
        while not any(code is not None for code in codes) and time.monotonic() < deadline:
            codes = [process.exitcode for process in self._env.processes]
            time.sleep(0.001)
        for process in self._env.processes:
            process.kill()
            process.join()
        for pipe in self._env.parent_pipes:
            pipe.close()
        code = next((code for code in codes if code is not None), None)
        if code is None:
            return "one of its processes has closed its files"
        if code < 0:
            return f"one of its processes was ended by the signal {signal.Signals(-code).name}"
        return f"its code ended one of its processes with the exit code {code}"
