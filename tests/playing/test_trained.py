"""A trained policy in three lines: it plays what the run's own programs play, or says why not."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saved_runs import save_run
from some_spaces import NUMERIC

import impala_redis
from impala_redis import ImpalaError, Policy, load
from impala_redis.common.acting.policies import make_policy
from impala_redis.common.blocks import wire
from impala_redis.common.encoding import given_masks
from impala_redis.common.encoding.actions import action_spec
from impala_redis.common.encoding.batching import batched
from impala_redis.common.encoding.observations import observation_spec
from impala_redis.common.encoding.space_text import text_of
from impala_redis.common.errors import (
    CheckpointError,
    ConfigError,
    RunMissing,
    SpecMismatch,
    UnsupportedEnvironment,
)
from impala_redis.common.playing.saved import from_checkpoint
from impala_redis.common.run.spaces import discrete
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.tasks.task import Task
from impala_redis.common.transport.learner_link import LearnerLink
from small_networks import FLOATS, make_spec
from support import ROOT

OLD_RUN = ROOT / "tests" / "records" / "run_of_0_1"
# Loading and playing a small network takes 53 MB at most, and no torch.
MOST_MB = 53


class Everything(gymnasium.Env[Any, Any]):
    """Observations of many kinds, and a number between bounds of its own as the action."""

    observation_space = spaces.Dict(
        {
            "view": spaces.Box(0, 255, (6, 6), np.uint8),
            "door": spaces.Discrete(3, start=1),
            "words": spaces.Text(20),
            "pair": spaces.Tuple((spaces.MultiBinary(2), spaces.Box(-1, 1, (), np.float64))),
        }
    )
    action_space = spaces.Box(np.array([2, -1], np.float32), np.array([4, 5], np.float32))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 1.0, False, False, {}


class Told(gymnasium.Env[Any, Any]):
    """Numbers, and the mask of three choices in the infos."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {"action_mask": np.ones(3, np.int8)}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    gymnasium.register("Everything-v0", Everything, max_episode_steps=9)
    yield
    del gymnasium.registry["Everything-v0"]


def policy_of(spec: RunSpec, seed: int = 0) -> Policy:
    """A policy of a spec, with weights of no matter."""
    rng = np.random.default_rng(7)
    weights = {k: rng.normal(0, 0.3, s).astype(np.float32) for k, s in spec.weight_shapes().items()}
    return Policy(lambda: (spec, wire.VersionedWeights(3, weights)), seed=seed)


def episode(env_id: str, policy: Policy, seed: int, steps: int) -> list[Any]:
    """The actions of one episode, one observation after the other."""
    environment = gymnasium.make(env_id)
    observation, _ = environment.reset(seed=seed)
    actions = []
    policy.reset()
    for _ in range(steps):
        actions.append(policy.act(observation))
        observation, reward, terminated, truncated, _ = environment.step(actions[-1])
        policy.remember(float(reward))
        if terminated or truncated:
            break
    environment.close()
    return actions


@pytest.mark.parametrize(
    "settings_",
    [{}, {"lstm_size": 8, "extra_inputs": "last_action_reward"}, {"frame_stack": 3}],
    ids=["plain", "memory", "stack"],
)
def test_an_episode_is_played_as_the_actors_policy_plays_it(
    tmp_path: Path, settings_: dict[str, Any]
) -> None:
    # given the policy that actors and impala-eval have
    save_run(tmp_path / "run", "CartPole-v1", **settings_)
    spec, weights = from_checkpoint(tmp_path / "run")
    acting = make_policy(spec, np.random.default_rng(0))
    acting.load(weights.version, weights.weights)
    acting.begin(1)
    environment = gymnasium.make("CartPole-v1")
    observation, _ = environment.reset(seed=2)
    expected, first = [], True
    for _ in range(40):
        actions = acting.greedy(observation[None], np.array([first]))
        expected.append(int(actions[0]))
        observation, reward, terminated, _, _ = environment.step(expected[-1])
        acting.remember(actions, np.array([reward], np.float32))
        first = False
        if terminated:
            break

    # when
    policy = load(tmp_path / "run")
    played = episode("CartPole-v1", policy, 2, 40)

    # then, from the start and after a reset
    assert played == expected == episode("CartPole-v1", policy, 2, 40)
    assert set(map(type, played)) == {int}


@pytest.mark.parametrize("extra", ["none", "last_action_reward"])
def test_a_batch_is_played_as_its_episodes_by_themselves(tmp_path: Path, extra: str) -> None:
    # given a network with a memory and a stack, and observations and rewards of three episodes
    changes = {"lstm_size": 8, "frame_stack": 2, "extra_inputs": extra}
    save_run(tmp_path / "run", "Pendulum-v1", **changes)
    rng = np.random.default_rng(3)
    seen = rng.normal(0, 1, (6, 3, 3)).clip(-1, 1).astype(np.float32)
    rewards = rng.normal(0, 1, (6, 3))
    together, alone = load(tmp_path / "run"), load(tmp_path / "run")

    # when the second one begins again after the third step
    batches = []
    for step, observations in enumerate(seen):
        if step == 3:
            together.reset([False, True, False])
        batches.append(together.act_batch(observations))
        together.remember(rewards[step])

    # then
    for column in range(3):
        alone.reset()
        for step in range(6):
            if (step, column) == (3, 1):
                alone.reset()
            action = alone.act(seen[step, column])
            np.testing.assert_allclose(action, batches[step][column], rtol=1e-5, atol=1e-6)
            alone.remember(rewards[step, column])


@pytest.mark.parametrize("changes", [{}, {"lstm_size": 8, "frame_stack": 3}])
def test_a_value_changes_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    # given
    save_run(tmp_path / "run", "CartPole-v1", **changes)
    asked, other = load(tmp_path / "run"), load(tmp_path / "run")
    seen = np.random.default_rng(3).normal(0, 0.1, (8, 4)).astype(np.float32)

    # when / then
    values = set()
    for observation in seen:
        before = asked.value(observation)
        assert asked.value(observation) == before
        values.add(before)
        assert asked.act(observation) == other.act(observation)
    assert len(values) == len(seen)
    assert all(isinstance(value, float) for value in values)


def test_values_are_of_the_task_that_is_named_and_in_its_rewards_also_by_popart(
    tmp_path: Path,
) -> None:
    # given the same network, whose baseline is normalised in one of the runs: by 1 and by 10
    tasks = [{"env": "CartPole-v1"}, {"name": "far", "env": "CartPole-v1", "reference": 10.0}]
    shared = {"tasks": tasks, "reward_clipping": "none", "lstm_size": 4}
    save_run(tmp_path / "plain", "CartPole-v1", **shared)
    save_run(tmp_path / "popart", "CartPole-v1", **shared, popart=True)
    plain, popart = load(tmp_path / "plain"), load(tmp_path / "popart")
    seen = np.full(4, 0.1, np.float32)

    # when / then
    near, far = (plain.value(seen, task=name) for name in ("CartPole-v1", "far"))
    assert near != far
    assert popart.value(seen, task="CartPole-v1") == pytest.approx(near)
    assert popart.value(seen, task="far") == pytest.approx(10 * far)
    for name in (None, "near"):
        with pytest.raises(ValueError, match=f"task is {name!r}; give task= one of CartPole-v1, f"):
            popart.value(seen, task=name)
    assert str(plain).startswith("<Policy of 2 tasks (CartPole-v1, far), run ")


def test_the_last_action_is_known_also_where_no_reward_is_told(tmp_path: Path) -> None:
    # given the policy that actors have
    save_run(tmp_path / "run", "CartPole-v1", lstm_size=8, extra_inputs="last_action_reward")
    spec, weights = from_checkpoint(tmp_path / "run")
    acting = make_policy(spec, np.random.default_rng(0))
    acting.load(weights.version, weights.weights)
    acting.begin(2)
    seen = np.random.default_rng(3).normal(0, 1, (12, 2, 4)).astype(np.float32)
    policy = load(tmp_path / "run")

    # when / then
    for step, observations in enumerate(seen):
        actions = acting.greedy(observations, np.full(2, step == 0))
        acting.remember(actions, np.zeros(2, np.float32))
        assert policy.act_batch(observations).tolist() == actions.tolist()


def test_episodes_that_ended_one_after_the_other_all_begin_again(tmp_path: Path) -> None:
    # given
    save_run(tmp_path / "run", "CartPole-v1", lstm_size=8, frame_stack=2)
    policy, fresh = load(tmp_path / "run"), load(tmp_path / "run")
    seen = np.random.default_rng(3).normal(0, 1, (4, 2, 4)).astype(np.float32)
    for observations in seen:
        policy.act_batch(observations)

    # when
    policy.reset([True, False])
    policy.reset([False, True])

    # then
    for observations in seen:
        assert policy.act_batch(observations).tolist() == fresh.act_batch(observations).tolist()


@pytest.mark.parametrize("changes", [{"lstm_size": 8, "frame_stack": 3}, {"frame_stack": 2}])
def test_a_value_is_that_of_an_episode_that_begins_again(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    # given
    save_run(tmp_path / "run", "CartPole-v1", **changes)
    policy = load(tmp_path / "run")
    first, second = np.random.default_rng(3).normal(0, 1, (2, 4)).astype(np.float32)
    policy.act(first)
    goes_on = policy.value(second)

    # when
    policy.reset([True])

    # then
    assert policy.value(second) == load(tmp_path / "run").value(second) != goes_on


@pytest.mark.parametrize("changes", [{"lstm_size": 8, "frame_stack": 3}, {"frame_stack": 2}])
def test_a_value_leaves_a_fresh_policy_fresh(tmp_path: Path, changes: dict[str, Any]) -> None:
    # given
    save_run(tmp_path / "run", "CartPole-v1", extra_inputs="last_action_reward", **changes)
    policy = load(tmp_path / "run")
    seen = np.full((2, 4), 0.1, np.float32)

    # when
    policy.value(seen[0])

    # then it may act for any number
    assert policy.act_batch(seen).tolist() == load(tmp_path / "run").act_batch(seen).tolist()


def test_observations_and_actions_of_every_kind_are_the_environments_own(tmp_path: Path) -> None:
    # given
    save_run(tmp_path / "run", "Everything-v0")
    policy = load(tmp_path / "run")
    assert policy.observation_space == Everything.observation_space
    assert policy.action_space == Everything.action_space
    assert (policy.env_id, policy.run, policy.version) == ("Everything-v0", "run", 0)
    observations = [policy.observation_space.sample() for _ in range(3)]

    # when
    alone = [policy.act(observation) for observation in observations]
    batch = policy.act_batch(observations)
    as_gymnasium = policy.act_batch(batched(policy.observation_space, observations))

    # then
    assert all(policy.action_space.contains(action) for action in alone)
    np.testing.assert_allclose(batch, np.stack(alone), rtol=1e-6)
    assert np.array_equal(batch, as_gymnasium)
    assert batch.dtype == np.float32


@given(space=NUMERIC, number=st.integers(1, 3))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_space_is_batched_as_gymnasium_does_it(space: Any, number: int) -> None:
    observations = [space.sample() for _ in range(number)]
    found = batched(space, observations)
    assert batch_space(space, number).contains(found)
    for one, row in zip(observations, found, strict=True):
        assert np.array_equal(one, row)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=5),
        spaces.MultiDiscrete([3, 2], start=[1, 7]),
        spaces.MultiBinary((2, 2)),
        spaces.Box(np.array([2.0, -1.0]), np.array([4.0, 5.0]), dtype=np.float64),
        spaces.Box(-3, 2, (2, 1), np.int32),
        spaces.Box(-3, 2, (), np.float64),
        spaces.Box(0.5, 0.75, (), np.float32),
    ],
    ids=repr,
)
@pytest.mark.parametrize("deterministic", [True, False])
def test_an_action_is_one_of_the_environments_space(space: Any, deterministic: bool) -> None:
    # given
    seen = spaces.Box(-1, 1, (3,), np.float32)
    policy = policy_of(
        make_spec(
            observation_spec("Test-v0", seen),
            action=action_spec("Test-v0", space),
            spaces=text_of(seen, space),
        )
    )

    # then
    actions = [policy.act(seen.sample(), deterministic) for _ in range(20)]
    assert all(space.contains(action) for action in actions)
    kind = int if isinstance(space, spaces.Discrete) else np.ndarray
    assert set(map(type, actions)) == {kind}
    batch = policy.act_batch(np.stack([seen.sample() for _ in range(4)]), deterministic)
    assert batch_space(space, 4).contains(batch)


def test_draws_are_those_of_the_seed() -> None:
    seen = spaces.Box(-1, 1, (3,), np.float32)
    choice = spaces.Discrete(4)
    spec = make_spec(observation_spec("T", seen), spaces=text_of(seen, choice))
    observations = np.zeros((64, 3), np.float32)
    draws = [policy_of(spec, seed).act_batch(observations, False).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        ([0.0, 1.0, 2.0], r"the observation is float64\[3\], not float32\[4\]"),
        (np.zeros((2, 4), np.float32), r"the observation is float32\[2, 4\], not float32\[4\]"),
        ("left", "the observation is <U4"),
        (None, "the observation is object"),
        ([0.0, 1e300, 0.0, 0.0], "has the value 1e.300, which float32 cannot hold"),
    ],
)
def test_what_is_no_observation_is_one_sentence(
    tmp_path: Path, observation: Any, words: str
) -> None:
    save_run(tmp_path / "run", "CartPole-v1")
    policy = load(tmp_path / "run")
    for ask in (policy.act, policy.value):
        with pytest.raises(ValueError, match=words) as caught:
            ask(observation)
        assert "\n" not in str(caught.value)


def test_what_is_no_batch_is_one_sentence(tmp_path: Path) -> None:
    # given
    save_run(tmp_path / "run", "Everything-v0")
    save_run(tmp_path / "stack", "CartPole-v1", frame_stack=2)
    policy, stack = load(tmp_path / "run"), load(tmp_path / "stack")
    batch = batched(policy.observation_space, [policy.observation_space.sample()] * 2)

    # then
    for wrong, words in (
        ({**batch, "view": batch["view"][:1]}, "not equally many: .*view 1"),
        (
            {key: one for key, one in batch.items() if key != "door"},
            "dict of batches with the keys",
        ),
        ({**batch, "words": "one"}, "'words' of the observations must be a batch"),
        ({**batch, "door": 2}, "'door' of the observations must be a batch"),
        ({**batch, "door": np.array([0, 9])}, "'door' of the observation has the value 0"),
        ([], "there are no observations"),
    ):
        with pytest.raises(ValueError, match=words):
            policy.act_batch(wrong)
    with pytest.raises(ValueError, match="no dict with"):
        policy.act({"view": batch["view"][0]})

    # and what is remembered is not mixed up
    seen = np.zeros((2, 4), np.float32)
    stack.act_batch(seen)
    for wrong_number in (lambda: stack.act(seen[0]), lambda: stack.value(seen[0])):
        with pytest.raises(ValueError, match=r"remembers 2 episodes and was given 1 observations"):
            wrong_number()
    with pytest.raises(ValueError, match="3 flags were given for 2 episodes"):
        stack.reset([True, False, True])
    with pytest.raises(ValueError, match="1 rewards were given for 2 actions"):
        stack.remember(1.0)
    stack.reset()
    assert stack.act(seen[0]) in (0, 1)


@pytest.mark.parametrize(
    "inner",
    [
        spaces.Box(-1, 1, (3,)),
        spaces.Dict(a=spaces.Box(-1, 1, (3,))),
        spaces.Dict(observation=spaces.Dict(a=spaces.Box(-1, 1, (3,)))),
        spaces.Tuple([spaces.Box(-1, 1, (3,)), spaces.Discrete(2)]),
    ],
    ids=["array", "dict", "dict in a dict", "tuple"],
)
def test_a_mask_from_infos_is_given_beside_the_observation(inner: Any) -> None:
    # given a space as the run sees it, with the mask as a part
    seen = spaces.Dict(
        {**(inner.spaces if isinstance(inner, spaces.Dict) else {"observation": inner})}
        | {"action_mask": spaces.MultiBinary(4)}
    )
    spec = make_spec(
        observation_spec("Test-v0", seen, masked=discrete(4)),
        spaces=text_of(seen, spaces.Discrete(4)),
        mask_from="info",
    )
    policy = policy_of(spec)

    # then
    assert policy.observation_space == inner == given_masks.own_space(seen)
    mask = np.ones(4, np.int8)
    assert policy.act(inner.sample(), action_mask=mask) in range(4)
    assert isinstance(policy.value(inner.sample(), action_mask=mask), float)
    batch = batched(inner, [inner.sample()] * 2)
    assert len(policy.act_batch(batch, action_masks=np.stack([mask] * 2))) == 2
    with pytest.raises(ValueError, match="give the mask of this observation"):
        policy.act(inner.sample())
    for ask in (policy.act, policy.value):
        with pytest.raises(ValueError, match="the action_mask allows nothing; ask for no action"):
            ask(inner.sample(), action_mask=0 * mask)
    with pytest.raises(ValueError, match="this one has none"):
        policy_of(
            make_spec(FLOATS, spaces=text_of(spaces.Box(-1, 1, (3,)), spaces.Discrete(4)))
        ).act(np.zeros(3, np.float32), action_mask=mask)


def test_a_run_with_masks_is_loaded_and_plays_by_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a game that raises on illegal moves, and one whose infos have the masks
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    save_run(tmp_path / "part", "tictactoe:TicTacToe-v0", lstm_size=4)
    gymnasium.register("Told-v0", Told)
    save_run(tmp_path / "info", "Told-v0", mask_from="info")
    part, info = load(tmp_path / "part"), load(tmp_path / "info")

    # then
    game = gymnasium.make("TicTacToe-v0")
    seen, over = game.reset(seed=1)[0], False
    while not over:
        seen, _, terminated, truncated, _ = game.step(part.act(seen))
        over = terminated or truncated
    with pytest.raises(ValueError, match="the action_mask allows nothing"):
        part.act({"board": np.ones(9, np.int64), "action_mask": np.zeros(9, np.int8)})
    assert info.observation_space == Told.observation_space
    for choice in range(3):
        assert info.act(np.zeros(2, np.float32), action_mask=np.eye(3)[choice]) == choice
    del gymnasium.registry["Told-v0"], gymnasium.registry["TicTacToe-v0"]
    sys.modules.pop("tictactoe", None)


def test_a_network_of_ones_own_is_imported_for_who_names_its_module(own_folder: Path) -> None:
    # given
    (own_folder / "theirs.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    features_dim = 3\n"
        "    def __init__(self, observation_space):\n"
        "        super().__init__(4, 3)\n"
    )
    save_run(own_folder / "run", "CartPole-v1", network="theirs:Net")
    del sys.modules["theirs"]

    # when
    for others in ((), "other", ["other"]):
        with pytest.raises(ConfigError, match=r"add to network_modules: theirs$"):
            load(own_folder / "run", env_modules="theirs", network_modules=others)

    # then
    assert "theirs" not in sys.modules

    # and by whatever name it is trusted, it plays the same
    file = own_folder / "theirs.py"
    named: list[Any] = ["theirs", ["other", "theirs"], file, str(file), [file]]
    policies = [load(own_folder / "run", network_modules=one) for one in named]
    seen = np.array([[0.0, 0.1, 0.2, 0.3], [0.3, -0.2, 0.1, 0.0]], np.float32)
    first, *others_actions = [policy.act_batch(seen).tolist() for policy in policies]
    assert set(first) <= {0, 1}
    assert others_actions == [first] * 4


def test_a_checkpoint_and_a_name_are_loaded_as_their_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    save_run(tmp_path / "runs" / "mine", "CartPole-v1", updates=5)
    monkeypatch.chdir(tmp_path)
    (document,) = Path("runs/mine/checkpoints").glob("*.json")

    # then
    for place in ("mine", "runs/mine", document, document.with_suffix(".safetensors")):
        assert load(place).version == 5
    with pytest.raises(CheckpointError, match="there is no run directory or checkpoint at other"):
        load("other")
    assert issubclass(CheckpointError, ImpalaError)


def test_a_run_of_0_1_asks_its_environment_for_the_spaces(tmp_path: Path) -> None:
    # given a run that does not tell them, and one of a module that nobody has named
    policy = load(OLD_RUN)
    assert len(episode("CartPole-v1", policy, seed=0, steps=500)) > 40
    spec, _ = from_checkpoint(OLD_RUN)
    wrapped = dataclasses.replace(spec, wrapper=("their_module:Wrap",))
    sized = dataclasses.replace(spec, env_kwargs='{"size": 1}')
    with pytest.raises(ConfigError, match=r"wrapper .* add to env_modules: their_module"):
        policy_of(wrapped)
    with pytest.raises(ConfigError, match=r"imported; .* add to env_modules: CartPole-v1"):
        policy_of(dataclasses.replace(spec, env_kwargs='{"env_id": "os:system"}'))
    with pytest.raises(UnsupportedEnvironment, match="takes no argument 'size'"):
        policy_of(sized)
    (document,) = (OLD_RUN / "checkpoints").glob("*.json")
    facts = json.loads(document.read_text())
    facts["spec"] = facts["spec"].replace("CartPole-v1", "their_module:Theirs-v0")
    (tmp_path / document.name).write_text(json.dumps(facts))
    beside = document.with_suffix(".safetensors")
    (tmp_path / beside.name).write_bytes(beside.read_bytes())

    # then
    with pytest.raises(ConfigError, match="made by the module 'their_module', which nobody"):
        load(tmp_path)


def test_a_run_of_tasks_that_tells_no_spaces_asks_its_first_task_as_it_is_played() -> None:
    # given a task whose arguments say what its actions are
    task = Task("cold", "Pendulum-v1", env_kwargs='{"g": 9.5, "wheels": 2}')
    spec = dataclasses.replace(from_checkpoint(OLD_RUN)[0], env=task.env, tasks=(task,))

    # then
    with pytest.raises(UnsupportedEnvironment, match="takes no argument 'wheels'"):
        policy_of(spec)


def test_a_game_of_atari_is_played_from_its_single_pictures(tmp_path: Path) -> None:
    # given a network with convolutions over four of them
    save_run(tmp_path / "run", "ALE/Pong-v5", network="shallow", frame_stack=4)
    policy = load(tmp_path / "run")
    pictures = np.random.default_rng(0).integers(0, 256, (6, 84, 84)).astype(np.uint8)

    # then
    assert policy.observation_space == spaces.Box(0, 255, (84, 84), np.uint8)
    values = [(policy.value(picture), policy.act(picture)) for picture in pictures]
    assert all(policy.action_space.contains(action) for _, action in values)
    assert policy.value(pictures[0]) != values[0][0]  # it has seen others since
    policy.reset()
    assert policy.value(pictures[0]) == values[0][0]
    with pytest.raises(ValueError, match=r"uint8\[210, 160, 3\], not uint8\[84, 84\]"):
        policy.act(np.zeros((210, 160, 3), np.uint8))


def test_spaces_that_are_not_the_runs_are_refused() -> None:
    other = text_of(spaces.Box(-1, 1, (4,)), spaces.Discrete(4))
    with pytest.raises(SpecMismatch, match=r"float32\[4\] here and float32\[3\] there"):
        policy_of(make_spec(FLOATS, spaces=other))


def test_a_live_run_is_read_again_by_refresh(redis_url: str, run_name: str) -> None:
    # given a learner that has published version 3
    spec = make_spec(run=run_name, spaces=text_of(spaces.Box(-1, 1, (3,)), spaces.Discrete(4)))
    link = LearnerLink(redis_url, run_name, "learner", 60.0)
    link.open()

    def publish(version: int, spec: RunSpec) -> None:
        ones = {k: np.full(s, version, np.float32) for k, s in spec.weight_shapes().items()}
        link.publish(version, wire.pack_weights(ones, version, spec))
        link.announce(spec.to_json(), spec.fingerprint, "running")

    publish(3, spec)
    policy = load(run_name, redis_url=redis_url)
    before = policy.value(np.ones(3, np.float32))

    # then
    assert (policy.version, policy.refresh()) == (3, False)
    publish(4, spec)
    assert (policy.refresh(), policy.version) == (True, 4)
    assert policy.value(np.ones(3, np.float32)) != before
    publish(5, dataclasses.replace(spec, popart=True))
    assert policy.refresh()
    with pytest.raises(ValueError, match=r"does not tell the scale of its values; load its run"):
        policy.value(np.ones(3, np.float32))
    publish(6, dataclasses.replace(spec, hidden_sizes=(4,)))
    with pytest.raises(SpecMismatch, match=r"another run is there now: hidden_sizes is \(16, 8\)"):
        policy.refresh()
    with pytest.raises(RunMissing, match="there is no run 'nowhere' on this server"):
        load("nowhere", redis_url=redis_url)
    link.close()


def test_the_password_of_a_server_comes_from_a_file(tmp_path: Path) -> None:
    # given no password, and a file that nobody asked for
    (tmp_path / "empty").write_text("\n")
    address = "redis://localhost:1/0"

    # then
    with pytest.raises(ConfigError, match="is empty: its first line must be the password"):
        load("x", redis_url=address, redis_password_file=tmp_path / "empty")
    with pytest.raises(ConfigError, match="give redis_url, too"):
        load("x", redis_password_file=tmp_path / "empty")


def test_a_small_network_is_loaded_and_played_without_torch_in_little_memory() -> None:
    # given a new interpreter
    code = f"""
import sys, resource
import impala_redis
assert "numpy" not in sys.modules
policy = impala_redis.load({str(OLD_RUN)!r})
assert policy.act([0.0, 0.0, 0.1, 0.0]) in (0, 1)
print([name for name in ("torch", "redis", "msgpack", "click", "rich") if name in sys.modules])
"""
    code += 'print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])'

    # when
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    # then
    imported, kb = done.stdout.splitlines()
    assert imported == "[]"
    assert int(kb) < MOST_MB * 1024, kb


def test_the_top_of_the_package_offers_these_names_and_no_other() -> None:
    assert impala_redis.load is load
    assert sorted(impala_redis.__all__) == ["ImpalaError", "Policy", "__version__", "load"]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = impala_redis.nothing
