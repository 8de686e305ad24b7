"""Stable-Baselines3: A2C, one process.

Steady rate: 1,024 environments through our adapter, which gives it gymnasium's vectorised CartPole
(one array step for all). Solving: 16 environments through the same adapter. Frames count at the
beginning of a rollout: what was collected until then has been learnt from.
"""

from typing import Any

import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from meter import Meter, read_options, tell

ENVS = {"fps": 1024, "solve": 16}
PLENTY = 10**9


class VectorCartPole(VecEnv):
    """Gymnasium's vectorised CartPole with a reset in the same step, as VecEnv promises."""

    def __init__(self, num_envs: int, seed: int) -> None:
        self._env = CartPoleVectorEnv(num_envs=num_envs)
        self._seed = seed
        self._returns = np.zeros(num_envs)
        super().__init__(
            num_envs, self._env.single_observation_space, self._env.single_action_space
        )

    def reset(self) -> np.ndarray:
        return self._env.reset(seed=self._seed)[0].copy()

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        env = self._env
        last, rewards, terminated, truncated, _ = env.step(self._actions)
        self._returns += rewards
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            infos[i] = {
                "terminal_observation": last[i],
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                # A reward of 1 for each step: the return is the length too.
                "episode": {"r": self._returns[i], "l": self._returns[i]},
            }
        observations = last.copy()
        if done.any():  # gymnasium would do it at the next step
            env.state[:, done] = env.np_random.uniform(-0.05, 0.05, (4, int(done.sum())))
            env.steps[done] = 0
            env.prev_done[:] = False
            observations[done] = env.state.T[done]
            self._returns[done] = 0.0
        return observations, rewards.astype(np.float32), done, infos

    def close(self) -> None:
        self._env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        pass

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Watch(BaseCallback):
    """Tells the meter of episodes and updates, and ends the training."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter
        self._enough = False

    def _on_rollout_start(self) -> None:
        if self.num_timesteps:
            self._enough = self._meter.update(self.num_timesteps)

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._meter.episode(info["episode"]["r"])
        return not self._enough


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    envs, meter = ENVS[options.what], Meter(options)
    model = A2C("MlpPolicy", VectorCartPole(envs, options.seed), seed=options.seed, device="cpu")
    model.learn(PLENTY, callback=Watch(meter))
    settings = f"A2C, 1 process, {envs:,} environments, vectorised"
    tell(settings, meter.figures(), "stable-baselines3", "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
