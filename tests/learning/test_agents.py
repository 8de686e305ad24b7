"""Actor and learner of every kind in one process: they agree about the policy, and they learn.

Each task is solved in a few hundred updates by the kind of network or action it is made for.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from full import in_full
from gymnasium import spaces
from numpy.typing import NDArray

from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.learning.torch_inputs import inputs_of, moved
from impala_redis.common.loss.distributions import evaluate_actions
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec, make_spec
from small_networks import lively_network

CPU = torch.device("cpu")
SIDE = 20  # of a picture in pixels, the least that the shallow network takes
SMALL_SIDE = 10  # for the deep one, which takes any


class Task(gymnasium.Env[Any, Any]):
    """Shows a cue in an episode's first rows, and asks for something in its last."""

    observation_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space: spaces.Space[Any] = spaces.Discrete(2)
    steps_each = 1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.cue = self.np_random.uniform(-1.0, 1.0, 2)
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        over = self.steps == self.steps_each
        return self.seen(), self.reward(action) if over else 0.0, over, False, {}

    def seen(self) -> NDArray[Any]:
        return self.cue.astype(np.float32)

    def reward(self, action: Any) -> float:
        raise NotImplementedError


class Catch(Task):
    """A ball falls over a picture; the action moves the paddle under it: 1 if it is caught."""

    action_space = spaces.Discrete(3, start=-1)
    steps_each = 4

    def __init__(self, side: int = SIDE, white: int = 255) -> None:
        self.scale, self.white = side // 5, white
        self.observation_space = spaces.Box(0, white, (side, side), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        gymnasium.Env.reset(self, seed=seed)
        self.steps = 0
        self.ball, self.paddle = (int(place) for place in self.np_random.integers(0, 5, 2))
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in (-1, 0, 1)
        self.paddle = min(max(self.paddle + int(action), 0), 4)
        return super().step(action)

    def seen(self) -> NDArray[Any]:
        cells = np.zeros((5, 5), np.uint8)
        cells[self.steps, self.ball] = cells[4, self.paddle] = self.white
        return cells.repeat(self.scale, 0).repeat(self.scale, 1)

    def reward(self, action: Any) -> float:
        return float(self.ball == self.paddle)


class Recall(Task):
    """The cue's sign is shown in the first row alone, and asked for three steps later."""

    steps_each = 4

    def seen(self) -> NDArray[Any]:
        shown = np.sign(self.cue[0]) if self.steps == 0 else 0.0
        return np.array([shown, self.steps == self.steps_each - 1], np.float32)

    def reward(self, action: Any) -> float:
        return float(action == (self.cue[0] > 0))


class Aim(Task):
    """One number within its bounds and one without: the nearer to the cue, the nearer to 1."""

    action_space = spaces.Box(
        np.array([0.0, -np.inf], np.float32), np.array([4.0, np.inf], np.float32)
    )

    def reward(self, action: Any) -> float:
        aims = (action[0] - 2.0) / 2.0, action[1] - 1.0
        return float(1.0 - np.abs(np.array(aims) - 0.8 * self.cue).mean())


class Both(Task):
    """Two choices at once, each worth a half."""

    action_space = spaces.MultiDiscrete([2, 3], start=[0, 5])

    def reward(self, action: Any) -> float:
        wanted = int(self.cue[0] > 0), 5 + int((self.cue[1] + 1.0) * 1.5)
        return float(np.mean([action[0] == wanted[0], action[1] == wanted[1]]))


class Flags(Task):
    """One of ten flags is up, and names the action."""

    observation_space = spaces.Box(0, 1, (10,), np.uint8)
    action_space = spaces.Discrete(10)

    def seen(self) -> Any:
        flags = np.zeros(10, np.uint8)
        flags[self.wanted] = self.observation_space.high[self.wanted]  # type: ignore[attr-defined]
        return flags

    @property
    def wanted(self) -> int:
        return min(int(5 * (self.cue[0] + 1)), 9)

    def reward(self, action: Any) -> float:
        return float(action == self.wanted)


class Codes(Flags):
    """The same in a part of a Dict, with codes up to 20 and other bounds for some of them."""

    observation_space = spaces.Dict(
        code=spaces.Box(0, np.array([1] * 5 + [20] * 5, np.uint8), dtype=np.uint8),
        noise=spaces.Box(-1.0, 1.0, (2,)),
    )

    def seen(self) -> Any:
        code = np.zeros(10, np.uint8)
        code[self.wanted] = self.observation_space["code"].high[self.wanted]  # type: ignore[index]
        return {"code": code, "noise": self.cue.astype(np.float32)[::-1] * 0}


class Chance(Task):
    """Episodes of 1 to 6 steps, ended or cut by chance, of which each step is rewarded."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.cue = self.np_random.uniform(-1.0, 1.0, 2)
        over, ended = self.np_random.random() < 0.3, self.np_random.random() < 0.5
        return self.seen(), float(self.cue.sum()), over and ended, over and not ended, {}


class ChancePictures(Chance):
    observation_space = spaces.Box(0, 255, (SIDE, SIDE), np.uint8)
    action_space = spaces.MultiDiscrete([2, 3])

    def seen(self) -> NDArray[Any]:
        return np.full((SIDE, SIDE), 100 * self.cue[0] + 100, np.uint8)


class ChanceNumbers(Chance):
    action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)


class ChanceColours(ChanceNumbers):
    observation_space = spaces.Box(0, 255, (3, 36, 36), np.uint8)

    def seen(self) -> NDArray[Any]:
        return np.full((3, 36, 36), 100 * self.cue[0] + 100, np.uint8)


TASKS = (
    Catch,
    Recall,
    Aim,
    Both,
    Flags,
    Codes,
    Chance,
    ChancePictures,
    ChanceNumbers,
    ChanceColours,
)
MEMORY = {"lstm_size": 16, "extra_inputs": "last_action_reward"}


@pytest.fixture(scope="module", autouse=True)
def _tasks() -> Iterator[None]:
    """The tasks by their names, and one thread: layers as small as these want no more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for task in TASKS:
        gymnasium.register(f"{task.__name__}-v0", entry_point=task)
    gymnasium.register("SmallCatch-v0", entry_point=Catch, kwargs={"side": SMALL_SIDE})
    gymnasium.register("FaintCatch-v0", entry_point=Catch, kwargs={"white": 1})
    yield
    for name in ("SmallCatch-v0", "FaintCatch-v0", *(f"{task.__name__}-v0" for task in TASKS)):
        del gymnasium.registry[name]
    torch.set_num_threads(threads)


class Training:
    """An actor of N environments of a task, its run's spec and settings."""

    def __init__(self, task: str, num_envs: int, **settings: Any) -> None:
        self.config = Config().replace({"envs_per_actor": num_envs, **settings})
        stack = self.config.environment.frame_stack
        self.environment = VectorEnvironment(f"{task}-v0", num_envs, frame_stack=stack)
        seen, action = self.environment.observation, self.environment.action
        self.spec: RunSpec = make_spec("agents", self.config, seen, action)
        self.actor = Actor(self.spec, self.environment, "host-1", 1)


@pytest.fixture
def played() -> Iterator[Callable[..., Training]]:
    """Makes actors, and closes their environments."""
    made: list[Training] = []

    def make(task: str, num_envs: int, **settings: Any) -> Training:
        made.append(Training(task, num_envs, **settings))
        return made[-1]

    yield make
    for one in made:
        one.actor.close()


Make = Callable[..., Training]


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("Chance", {}),
        ("Chance", {"lstm_size": 6}),
        ("Chance", MEMORY),
        ("Chance", {**MEMORY, "frame_stack": 3}),
        ("ChanceNumbers", {}),
        ("ChanceNumbers", MEMORY),
        ("ChancePictures", {"network": "shallow", "frame_stack": 2}),
        ("ChancePictures", {**MEMORY, "network": "shallow", "frame_stack": 2}),
        ("ChancePictures", {"network": "deep"}),
        ("ChanceColours", {**MEMORY, "network": "deep"}),
        ("ChanceColours", {"lstm_size": 6, "network": "nature", "frame_stack": 2}),
    ],
    ids=str,
)
def test_what_an_actor_says_of_its_actions_is_what_the_learner_finds_with_its_weights(
    played: Make, task: str, settings: dict[str, Any]
) -> None:
    # given an actor with weights that make its policy differ from row to row
    one = played(task, 3, unroll_length=7, hidden_sizes=(8,), **settings)
    model = lively_network(one.spec)
    one.actor.policy.load(1, {name: p.detach().numpy() for name, p in model.named_parameters()})
    batch: Batch = Batch(empty_trajectory(one.spec, 3))

    borders = 0
    for _ in range(5):
        # when it plays an unroll, and the learner's network with these weights goes over it
        rows = one.actor.unroll().trajectory
        batch.clear()
        batch.take(rows, 0, version=1)
        seen, learned = inputs_of(moved(batch.rows, CPU))
        with torch.no_grad():
            outputs = model(seen).policy[:-1]
        found = evaluate_actions(one.spec.action, outputs, learned.actions)

        # then both say the same of every action, after an episode's border and before it
        np.testing.assert_allclose(found.log_probs, rows.behaviour_log_probs, rtol=1e-5, atol=1e-5)
        assert np.ptp(rows.behaviour_log_probs) > 0.01
        borders += np.count_nonzero(rows.is_first[1:])
    assert borders > 5


def score_after_training(one: Training, updates: int) -> float:
    """Trains on every unroll that is played; the mean return of the last 500 episodes."""
    learner = Learner(one.config, TorchEngine(one.spec, one.config))
    batch = Batch(empty_trajectory(one.spec, one.spec.envs_per_actor))
    returns: deque[float] = deque(maxlen=500)
    for _ in range(updates):
        one.actor.policy.load(learner.version, learner.weights())
        block = one.actor.unroll()
        returns.extend(episode.episode_return for episode in block.episodes)
        batch.clear()
        batch.take(block.trajectory, 0, learner.version)
        batch.frames = block.trajectory.frames
        learner.update(batch)
    assert learner.skipped == 0
    return float(np.mean(returns))


LEARNING = {
    "unroll_length": 10,
    "hidden_sizes": (32,),
    "optimizer": "adam",
    "reduction": "mean",
    "learning_rate": 3e-3,
    "entropy_cost": 0.01,
    "grad_norm_clipping": 0.5,
    "discounting": 0.95,
}


@pytest.mark.parametrize(
    ("task", "settings", "updates", "score"),
    [
        ("Catch", {"network": "shallow", "activation": "relu"}, 200, 0.8),
        ("Recall", {"lstm_size": 16}, 300, 0.8),
        ("Aim", {"entropy_cost": 0.0}, 400, 0.6),
        ("Both", {}, 300, 0.8),
        *in_full(
            ("SmallCatch", {"network": "deep", "activation": "relu"}, 100, 0.7),
            ("FaintCatch", {"network": "shallow", "activation": "relu"}, 200, 0.8),
            ("Flags", {}, 300, 0.8),
            ("Codes", {}, 300, 0.8),
            ("Recall", {"frame_stack": 4}, 300, 0.8),
        ),
    ],
    ids=str,
)
def test_every_kind_of_agent_learns(
    played: Make, task: str, settings: dict[str, Any], updates: int, score: float
) -> None:
    one = played(task, 16 if "deep" in settings.values() else 32, **{**LEARNING, **settings})
    assert score_after_training(one, updates) > score


def test_without_a_memory_what_was_shown_before_is_not_recalled(played: Make) -> None:
    one = played("Recall", 32, **LEARNING)
    assert score_after_training(one, 300) < 0.6
