"""Updates as tests make them: small runs of every kind, batches of random rows, and the figures."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from impala_redis.common.blocks.trajectory import Episode, empty_trajectory
from impala_redis.common.feeding.batch import Batch, Part
from impala_redis.common.learning.learner import Learner
from impala_redis.common.records.window import Played
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec

T, B = 4, 3


def make_config(**changes: Any) -> Config:
    values = {"hidden_sizes": [8], "unroll_length": T, "batch_size": B, "total_frames": 1000}
    return Config().replace(values | changes)


def spec_of(config: Config, features: int = 2, num_actions: int = 3) -> RunSpec:
    observation = ObservationSpec((features,), "float32")
    return make_spec("test", config, observation, discrete(num_actions))


FRAMES = ObservationSpec((40, 36), "uint8", scale=(255,))
CONVOLVED = {"network": "shallow", "frame_stack": 4, "activation": "relu"}
REMEMBERING = {"lstm_size": 8, "extra_inputs": "last_action_reward"}


# Three tasks whose rewards differ in size, and values in units of their own deviations.
POPART: dict[str, Any] = {
    "tasks": [
        {"name": "small", "env": "CartPole-v1", "reward_scale": 0.01},
        {"name": "plain", "env": "CartPole-v1"},
        {"name": "large", "env": "CartPole-v1", "reference": -2.0, "reward_scale": 100.0},
    ],
    "popart": True,
    "reward_clipping": "none",
}


class Kind(NamedTuple):
    changes: dict[str, Any]
    observation: ObservationSpec = ObservationSpec((2,), "float32")
    action: ActionSpec = discrete(3)
    rounding: float = 1e-3  # of figures, relative: a GPU adds up in another order


KINDS = {
    "a perceptron by Adam": Kind({"optimizer": "adam"}),
    "a perceptron by RMSProp": Kind({"optimizer": "rmsprop"}),
    "a memory": Kind(REMEMBERING),
    "numbers": Kind({}, action=ActionSpec("continuous", (2,), bounded=True)),
    "numbers that are normalised, as all else is": Kind(
        {
            "normalize_observations": True,
            "normalize_rewards": True,
            "normalize_advantages": True,
        },
        action=ActionSpec("continuous", (2,), bounded=True),
    ),
    "a number": Kind({}, action=ActionSpec("continuous", (1,))),
    "stacks of frames": Kind(CONVOLVED, FRAMES, rounding=2e-2),
    "stacks of frames and a memory, in bfloat16": Kind(
        {**CONVOLVED, **REMEMBERING, "precision": "bfloat16"}, FRAMES, rounding=0.1
    ),
    "three tasks by PopArt": Kind({**POPART, "optimizer": "adam"}),
    "the deep network": Kind(
        {"network": "deep"}, ObservationSpec((24, 32, 3), "uint8", scale=(255,)), rounding=2e-2
    ),
}


def spec_of_kind(kind: Kind, config: Config) -> RunSpec:
    seen = dataclasses.replace(kind.observation, frame_stack=config.environment.frame_stack)
    return make_spec("test", config, seen, kind.action)


def make_data(spec: RunSpec, seed: int, version: int = 0, size: int = B) -> Batch:
    """A full batch of random but valid rows, with sixty ended episodes of one environment."""
    rng = np.random.default_rng(seed)
    batch = Batch(empty_trajectory(spec, size))
    rows = batch.rows
    rows.observations[:] = rng.normal(size=rows.observations.shape)
    rows.is_first[:] = False
    rows.actions[:] = rng.integers(0, spec.action.num_outputs, rows.actions.shape)
    rows.rewards[:] = rng.normal(size=rows.rewards.shape)
    rows.discounts[:] = rng.random(rows.discounts.shape) < 0.8
    rows.behaviour_log_probs[:] = np.log(rng.uniform(0.1, 0.9, rows.discounts.shape))
    rows.mask[:] = rng.random(rows.mask.shape) < 0.8
    rows.memory[:] = 0.0
    rows.tasks[:] = rng.integers(0, spec.num_tasks, rows.tasks.shape)
    batch.filled, batch.frames = size, rows.frames
    batch.versions, batch.parts = [version] * size, [Part(("a", 1), slice(0, size), range(size))]
    # So many that the mean return is known from the second batch on.
    batch.episodes = [Episode(float(np.float32(r)), 5, 0) for r in rng.normal(size=60)]
    played = rows.tasks[0, :1, 0].tolist() if spec.num_tasks > 1 else ()
    batch.blocks = [Played(("a", 1), 1, True, tuple(batch.episodes), tasks=played)]
    return batch


def figures_after(learner: Learner, batch: Batch) -> dict[str, float]:
    """Makes an update, waits for it, and returns its figures."""
    return [*learner.update(batch), *learner.settle()][-1].figures
