"""Small tasks of one environment, from CartPole to HalfCheetah.

The paper's settings are made for Atari. On small tasks the mean over time and batch makes the
learning rate independent of how much is in a batch, and rewards are scaled so that returns are not
far from 10.
"""

from typing import Any

SMALL_TASK: dict[str, Any] = {
    "optimizer": "adam",
    "reduction": "mean",
    "reward_clipping": "none",
    "reward_scale": 0.1,
    # Such a run takes seconds, and its curve needs more than three points.
    "log_interval_s": 0.1,
}
_CORRIDOR: dict[str, Any] = SMALL_TASK | {
    "env": "impala/ShortCorridor-v0",
    # All states look alike: the network has nothing to tell apart.
    "hidden_sizes": (8,),
    "total_frames": 3_000_000,
    # The value of states that look alike is their mean, so bootstrapping from it biases the policy:
    # unrolls of some twenty episodes, without a discount, leave little to bootstrap.
    "unroll_length": 250,
    "discounting": 1.0,
    "entropy_cost": 0.0,
    # The rate falls to 0, and with it the noise around the best policy.
    "learning_rate": 0.01,
}

_CARTPOLE: dict[str, Any] = SMALL_TASK | {
    "env": "CartPole-v1",
    "stop_at_return": 475.0,
    "total_frames": 5_000_000,
    "learning_rate": 1.5e-3,
    "learning_rate_schedule": "constant",
    # The mean over time and batch leaves the policy soft enough; a bonus keeps it from being as
    # good greedily as it is sampled.
    "entropy_cost": 0.0,
    "grad_norm_clipping": 1.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Made for a short time to the goal. A block is a batch, and one waits at most: the policy that
    # plays is an update or two old, and so bears a high learning rate; with less inertia than
    # Adam's usual, the policy seldom overshoots. The rate falls: at a constant one a run in 150
    # overshot near the goal, and lost all.
    "cartpole": _CARTPOLE
    | {
        "envs_per_actor": 128,
        "batch_size": 128,
        "queue_blocks": 1,
        "learning_rate": 6e-3,
        "learning_rate_schedule": "linear",
        "adam_beta1": 0.5,
        "total_frames": 2_000_000,
    },
    # Made for frames a second, not for few frames to the goal: an update takes 8 times as many.
    "cartpole-throughput": _CARTPOLE
    | {
        "envs_per_actor": 1024,
        "batch_size": 1024,
        "queue_blocks": 2,
        "queue_policy": "block",  # what is played is trained on, and no step of it is dropped
        "stop_at_return": None,
        "total_frames": 20_000_000,
        "learning_rate_schedule": "linear",
        "log_interval_s": 1.0,  # the run takes a quarter of a minute
    },
    # An episode has 200 steps at most. The run does not stop at a return: a sampled policy that
    # earns 195 says little about the greedy one, and when the rate has fallen to 0, the greedy one
    # earns 200 each time.
    "cartpole-v0": _CARTPOLE
    | {
        "env": "CartPole-v0",
        "num_actors": 3,
        "stop_at_return": None,
        "total_frames": 400_000,
        "learning_rate_schedule": "linear",
    },
    "acrobot": SMALL_TASK
    | {
        "env": "Acrobot-v1",
        "stop_at_return": -100.0,
        "total_frames": 5_000_000,
        "envs_per_actor": 16,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "learning_rate_schedule": "constant",
        "grad_norm_clipping": 1.0,
    },
    # Only a network with memory can tell which way the pole is falling. The run does not stop at a
    # return: as the rate falls, the policy leaves less to chance.
    "masked-cartpole": _CARTPOLE
    | {
        "env": "impala/MaskedCartPole-v1",
        "lstm_size": 64,
        "unroll_length": 32,
        "envs_per_actor": 64,
        "stop_at_return": None,
        "total_frames": 3_000_000,
        "learning_rate_schedule": "linear",
    },
    # There are a key, a locked door and a goal; the agent sees a part and must remember the rest.
    "minigrid": SMALL_TASK
    | {
        "env": "MiniGrid-DoorKey-5x5-v0",
        "hidden_sizes": (64,),
        "lstm_size": 64,
        "envs_per_actor": 16,
        "batch_size": 16,
        # There is at most one reward in an episode, and in the beginning it is rare.
        "reward_scale": 10.0,
        "entropy_cost": 0.01,
        "learning_rate": 7e-4,
        "entropy_schedule": "linear",  # a greedy policy that is not sure walks in circles
        "total_frames": 800_000,
        "log_interval_s": 1.0,
    },
    "lunarlander": SMALL_TASK
    | {
        "env": "LunarLander-v3",
        "activation": "relu",
        "envs_per_actor": 16,
        "batch_size": 8,
        "unroll_length": 32,
        "queue_blocks": 1,
        # A landing takes hundreds of steps, and then brings a hundred points at once.
        "discounting": 0.995,
        "lambda": 0.95,
        "reward_scale": 0.03,
        "entropy_cost": 3e-4,
        "learning_rate": 3e-3,
        "grad_norm_clipping": 0.1,
        "total_frames": 1_500_000,
        "log_interval_s": 1.0,
    },
    # The run does not stop at a return: it ends when the rate is 0 and the policy has settled.
    "pendulum": SMALL_TASK
    | {
        "env": "Pendulum-v1",
        "envs_per_actor": 16,
        "batch_size": 16,
        "unroll_length": 16,
        "queue_blocks": 1,
        "discounting": 0.9,
        "lambda": 0.95,
        "entropy_cost": 0.0,
        "learning_rate": 2e-3,
        "grad_norm_clipping": 0.5,
        "total_frames": 800_000,
        "log_interval_s": 1.0,
    },
    # Drawn actions that reach their bounds hide what a gait is worth: with a first deviation of 1
    # and larger, replayed batches greedy returns were 729 and 2,127. Small unrolls of few
    # environments give many updates: one for 64 steps. Nothing is replayed: with 0.875 of a batch
    # the deviation collapsed, and the return fell to -375.
    "mujoco": SMALL_TASK
    | {
        "env": "HalfCheetah-v5",
        "reward_scale": 1.0,
        "normalize_observations": True,
        "normalize_rewards": True,
        "initial_std": 0.2,
        "envs_per_actor": 8,
        "batch_size": 8,
        "unroll_length": 8,
        "queue_blocks": 1,
        "queue_policy": "block",  # no step is dropped
        "lambda": 0.9,
        "entropy_cost": 0.0,
        "learning_rate": 5e-4,
        "adam_epsilon": 1e-5,
        "grad_norm_clipping": 0.5,
        "total_frames": 1_000_000,
        "log_interval_s": 1.0,
    },
    "corridor-vtrace": _CORRIDOR,
    # Whole returns, no bootstrap and no correction: REINFORCE with a baseline.
    "corridor-reinforce": _CORRIDOR | {"returns": "monte_carlo", "correction": "none"},
}
