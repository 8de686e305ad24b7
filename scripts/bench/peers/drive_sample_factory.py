"""Sample Factory: APPO, asynchronous, each rollout worker a process.

Our adapter gives it gymnasium's vectorised CartPole (one array step for all) as one environment of
many agents. Steady rate: one worker of 1,024 agents. Solving: two workers of 64. Frames are those
that its learner reports as trained on.
"""

import tempfile
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from sample_factory.algo.runners.runner import AlgoObserver
from sample_factory.algo.utils.misc import EPISODIC, LEARNER_ENV_STEPS
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner

from meter import Meter, read_options, tell

WORKERS = {"fps": 1, "solve": 2}
AGENTS = {"fps": 1024, "solve": 64}
FLAGS = {
    "fps": ["--batch_size=16384"],
    "solve": ["--batch_size=2048", "--learning_rate=0.001", "--reward_scale=0.1"],
}
COMMON_FLAGS = [
    *("--algo=APPO", "--device=cpu", "--experiment=peer", "--use_rnn=False"),
    *("--encoder_mlp_layers", "64", "64", "--nonlinearity=tanh", "--rollout=32", "--recurrence=1"),
    *("--async_rl=True", "--serial_mode=False", "--batched_sampling=True"),
    *("--num_envs_per_worker=1", "--worker_num_splits=1", "--train_for_env_steps=1000000000"),
    *("--save_every_sec=100000", "--save_best_every_sec=100000"),
]


class VectorCartPole(gymnasium.Env):
    """Gymnasium's vectorised CartPole as one environment of many agents."""

    def __init__(self, agents: int) -> None:
        self._env = CartPoleVectorEnv(num_envs=agents)
        self.num_agents = agents
        self.is_multiagent = True
        # Its own bounds are beyond float32, which Sample Factory refuses.
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        return self._env.reset()[0], {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        chosen = np.asarray(actions).reshape(-1).astype(np.int32)
        observations, rewards, terminated, truncated, _ = self._env.step(chosen)
        return observations, rewards.astype(np.float32), terminated, truncated, {}


def make_environment(name: str, *_: Any, **__: Any) -> VectorCartPole:
    """By the number of agents in its name; at the module's top, since workers get it pickled."""
    return VectorCartPole(int(name.rpartition("-")[2]))


class Watch(AlgoObserver):
    """Tells the meter of episodes and updates, and ends the training."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_init(self, runner: Any) -> None:
        runner.policy_msg_handlers[LEARNER_ENV_STEPS].append(self._on_update)
        runner.policy_msg_handlers[EPISODIC].insert(0, self._on_episode)

    def _on_update(self, runner: Any, message: dict, policy_id: int) -> None:
        if self._meter.update(message[LEARNER_ENV_STEPS]):
            runner.cfg.train_for_env_steps = 0

    def _on_episode(self, runner: Any, message: dict, policy_id: int) -> None:
        for episode_return in np.atleast_1d(message[EPISODIC].get("reward", [])):
            self._meter.episode(episode_return)


def main() -> None:
    options = read_options()
    workers, agents = WORKERS[options.what], AGENTS[options.what]
    name = f"cartpole-{agents}"
    register_env(name, make_environment)
    flags = [*COMMON_FLAGS, *FLAGS[options.what], f"--env={name}", f"--num_workers={workers}"]
    flags += [f"--seed={options.seed}", f"--train_dir={tempfile.mkdtemp()}"]
    parser, _ = parse_sf_args(argv=flags)
    _, runner = make_runner(parse_full_cfg(parser, flags))
    meter = Meter(options)
    runner.register_observer(Watch(meter))
    if runner.init() != 0:
        raise SystemExit("error: Sample Factory refused the settings")
    runner.run()
    settings = f"APPO, {workers} x {agents:,} environments in workers, vectorised"
    tell(settings, meter.figures(), "sample-factory", "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
