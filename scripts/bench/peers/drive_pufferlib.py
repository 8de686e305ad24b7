"""PufferLib: PuffeRL (PPO), one process, no transport.

Our adapter gives it gymnasium's vectorised CartPole (one array step for all) as one environment of
many agents. Steady rate: 1,024 agents and its own defaults. Solving: 32 agents and settings that
we found, since its defaults did not solve it within 40 s. The policy is its default: one hidden
layer of 64. Its minibatches are drawn by priority, so a frame may be used twice or never; counted
are frames collected for an epoch's worth of updates.
"""

import functools
import os
import sys
import tempfile
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from meter import Meter, read_options, tell

ENVS = {"fps": 1024, "solve": 32}
TRAINING = {
    "fps": {"minibatch_size": 8192, "bptt_horizon": 64},
    "solve": {
        "minibatch_size": 512,
        "bptt_horizon": 32,
        "update_epochs": 4,
        "prio_alpha": 0.0,
        "optimizer": "adam",
        "learning_rate": 0.003,
        "adam_beta1": 0.9,
        "adam_eps": 1e-8,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
    },
}
PLENTY = 10**9

OPTIONS = read_options()
# Its import makes a link in the working directory, and its trainer reads the command line.
os.chdir(tempfile.mkdtemp())
sys.argv = sys.argv[:1]

import pufferlib  # noqa: E402
import pufferlib.models  # noqa: E402
import pufferlib.vector  # noqa: E402
from pufferlib import pufferl  # noqa: E402


class VectorCartPole(pufferlib.PufferEnv):
    """Gymnasium's vectorised CartPole as one environment of many agents."""

    def __init__(self, agents: int, buf: Any = None, seed: int = 0) -> None:
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(2)
        self.num_agents = agents
        super().__init__(buf)
        self._env = CartPoleVectorEnv(num_envs=agents)
        self._returns = np.zeros(agents)

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, list]:
        self.observations[:] = self._env.reset(seed=seed)[0]
        return self.observations, []

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        chosen = np.asarray(actions).reshape(-1).astype(np.int64)
        observations, rewards, terminated, truncated, _ = self._env.step(chosen)
        self.observations[:], self.rewards[:] = observations, rewards
        self.terminals[:], self.truncations[:] = terminated, truncated
        self._returns += rewards
        done = terminated | truncated
        infos = [{"episode_return": float(total)} for total in self._returns[done]]
        self._returns[done] = 0.0
        return self.observations, self.rewards, self.terminals, self.truncations, infos

    def close(self) -> None:
        self._env.close()


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(OPTIONS.seed)
    envs, meter = ENVS[OPTIONS.what], Meter(OPTIONS)
    pufferl.PuffeRL.print_dashboard = lambda *_, **__: None
    make = functools.partial(VectorCartPole, agents=envs)
    vector = pufferlib.vector.make(make, backend=pufferlib.PufferEnv, num_envs=1)
    config = pufferl.load_config("default")["train"]
    config |= {"device": "cpu", "seed": OPTIONS.seed, "use_rnn": False, "env": "cartpole"}
    config |= {"checkpoint_interval": PLENTY, "total_timesteps": PLENTY, "batch_size": "auto"}
    config |= TRAINING[OPTIONS.what]
    policy = pufferlib.models.Default(vector.driver_env, hidden_size=64)
    trainer = pufferl.PuffeRL(config, vector, policy)
    enough = False
    while not enough:
        trainer.stats.clear()
        for episode_return in trainer.evaluate().get("episode_return", []):
            meter.episode(episode_return)
        trainer.train()
        enough = meter.update(trainer.global_step)
    settings = f"PPO, 1 process, {envs:,} environments, vectorised"
    tell(settings, meter.figures(), "pufferlib", "torch", "gymnasium", "numpy", "heavyball")
    os._exit(0)  # its threads would keep the process


if __name__ == "__main__":
    main()
