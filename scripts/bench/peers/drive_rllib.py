"""RLlib: IMPALA, one env runner, the learner in the driver's process.

It is set to take CartPole in gymnasium's vectorised form (one array step for all), without an
adapter; its default is one Python object for each environment. Steady rate: 128 environments and
batches of 4,000. Solving: 16 environments, batches of 500, and a learning rate and entropy cost
that we found, since its tuned example did not solve it within 160 s. Frames are those that its
learner reports as trained on; the mean return of the last 100 episodes is its own figure.
"""

import logging
import math
import os
from typing import Any

import gymnasium
import ray
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from meter import EPISODES, Meter, read_options, tell

ENVS = {"fps": 128, "solve": 16}
TRAINING = {
    "fps": {"train_batch_size_per_learner": 4000, "lr": 0.0005, "entropy_coeff": 0.0},
    "solve": {"train_batch_size_per_learner": 500, "lr": 0.002, "entropy_coeff": 0.005},
}
OBJECT_STORE_BYTES = 1 << 30


def learned(result: dict[str, Any]) -> int:
    """Frames that its learner has been trained on so far."""
    learner = result.get("learners", {}).get("__all_modules__", {})
    return int(learner.get("num_env_steps_trained_lifetime", 0))


def main() -> None:
    options = read_options()
    envs, meter = ENVS[options.what], Meter(options)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=4,  # only for its book-keeping: with fewer it would not start all its processes
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    network = DefaultModelConfig(
        fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=True
    )
    algorithm = (
        IMPALAConfig()
        .environment("CartPole-v1")
        .env_runners(
            num_env_runners=1,
            num_envs_per_env_runner=envs,
            gym_env_vectorize_mode=gymnasium.VectorizeMode.VECTOR_ENTRY_POINT,
        )
        .learners(num_learners=0)
        .training(
            vf_loss_coeff=0.05, grad_clip=40.0, grad_clip_by="global_norm", **TRAINING[options.what]
        )
        .reporting(min_time_s_per_iteration=1, metrics_num_episodes_for_smoothing=EPISODES)
        .debugging(seed=options.seed, log_level="ERROR")
        .rl_module(model_config=network)
        .build_algo()
    )
    enough = False
    while not enough:
        result = algorithm.train()
        episodes = result.get("env_runners", {})
        mean = episodes.get("episode_return_mean", math.nan)
        if episodes.get("num_episodes_lifetime", 0) >= EPISODES and not math.isnan(mean):
            meter.mean_return(mean)
        # Until the first update it reports nothing about its learner.
        if frames := learned(result):
            enough = meter.update(frames)
    settings = f"IMPALA, 1 env runner of {envs:,} environments, vectorised"
    tell(settings, meter.figures(), "ray", "torch", "gymnasium", "numpy")
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
