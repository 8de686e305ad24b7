"""Atari: frames equal the references', lives are episodes, and no point of a game is lost."""

import sys
import types
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import AtariPreprocessing
from numpy.typing import NDArray

from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.games import atari, atari_rules
from impala_redis.common.settings.variant import Variant

ale_vector = pytest.importorskip("ale_py.vector_env")

PONG, BREAKOUT, INVADERS = "ALE/Pong-v5", "ALE/Breakout-v5", "ALE/SpaceInvaders-v5"
SEED = 2**32 - 2  # an actor may give it; ALE itself takes none that is as great


def stacks_of_ale(game: str, num_envs: int) -> Any:
    """ALE's own stacks of four frames, whole games, from the same seeds."""
    stacks = ale_vector.AtariVectorEnv(
        game, num_envs, num_threads=1, noop_max=31, reward_clipping=False, use_fire_reset=False
    )
    stacks.first, _ = stacks.reset(seed=atari.game_seeds(SEED, num_envs))
    return stacks


def random_actions(env: Any, steps: int) -> NDArray[np.int64]:
    shape = (steps, env.num_envs)
    return np.random.default_rng(0).integers(env.single_action_space.n, size=shape)


def area_resize(image: NDArray[np.uint8], size: tuple[int, int], **_: Any) -> NDArray[np.uint8]:
    """Each pixel the mean of what it covers; in the form of OpenCV's `resize`."""

    def shares(new: int, old: int) -> NDArray[np.float64]:  # [new, old]
        edges, lines = np.arange(new + 1) * old / new, np.arange(old)
        covered = np.minimum(edges[1:, None], lines + 1) - np.maximum(edges[:-1, None], lines)
        return np.maximum(covered, 0.0) * new / old

    width, height = size
    if image.shape[:2] == (height, width):
        return image.copy()
    means = shares(height, image.shape[0]) @ image @ shares(width, image.shape[1]).T
    return np.rint(means).astype(np.uint8)


def test_several_threads_play_the_same_games_as_one() -> None:
    # given the same games, with more threads than divide them evenly
    one, several = (VectorEnvironment(BREAKOUT, 7, num_threads=n) for n in (None, 3))
    np.testing.assert_array_equal(one.reset(SEED), several.reset(SEED))

    # when
    actions = np.random.default_rng(0).integers(one.action.sizes[0], size=(300, 7))
    for row in actions:
        expected, found = one.step(row), several.step(row)

        # then
        for theirs, mine in zip(expected[:5], found[:5], strict=True):
            np.testing.assert_array_equal(theirs, mine)
    one.close()
    several.close()


@pytest.fixture
def as_gymnasium_plays(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A game in Gymnasium's own wrapper; it takes from OpenCV only this one function."""
    stand_in: Any = types.ModuleType("cv2")
    stand_in.resize, stand_in.INTER_AREA = area_resize, None
    monkeypatch.setitem(sys.modules, "cv2", stand_in)

    def play(env_id: str, **options: Any) -> AtariPreprocessing:
        env = gymnasium.make(env_id, frameskip=1, repeat_action_probability=0.0)
        return AtariPreprocessing(env, noop_max=0, **options)

    return play


def test_frames_are_the_newest_of_ales_own_stacks_which_start_from_zeros() -> None:
    # given the same games, frame by frame and in stacks
    env, ale = atari.make(BREAKOUT, 2, whole_games=True), stacks_of_ale("breakout", 2)
    frames, _ = env.reset(seed=SEED)
    stack = np.zeros_like(ale.first)
    stack[:, -1] = frames
    np.testing.assert_array_equal(stack, ale.first)
    over, games = np.zeros(2, np.bool_), 0

    # when they are played, and the frames stacked
    for actions in random_actions(env, 200):
        frames, *ours, _ = env.step(actions)
        theirs = ale.step(actions)
        stack[over] = 0
        stack = np.concatenate([stack[:, 1:], frames[:, None]], axis=1)

        # then stacks, rewards and ends are the same
        np.testing.assert_array_equal(stack, theirs[0])
        for mine, other in zip(ours, theirs[1:4], strict=True):
            np.testing.assert_array_equal(mine, other)
        over = ours[1] | ours[2]
        games += int(over.sum())
    assert games >= 2


def test_frames_and_pictures_are_those_of_gymnasiums_wrapper(as_gymnasium_plays: Any) -> None:
    # given the same game, in one form that draws and in the form of an actor
    env = atari.make_single(BREAKOUT, render_mode="rgb_array")
    frame, _ = env.reset(seed=SEED)
    vector = atari.make(BREAKOUT, 1)
    frames, infos = vector.reset(seed=SEED)
    np.testing.assert_array_equal(frames[0], frame)

    # and twice more, in grey and in colour, from the same no-op on
    grey = as_gymnasium_plays(BREAKOUT)
    colour = as_gymnasium_plays(BREAKOUT, grayscale_obs=False, screen_size=(160, 210))
    for reference in (grey, colour):
        reference.reset()
        for _ in range(infos["episode_frame_number"][0]):
            reference.env.step(0)

    # when it is played
    for (action,) in random_actions(vector, 60):
        frame, *ours = env.step(action)
        expected, *theirs = grey.step(action)

        # then frames are the same but for rounding, and the rest is the same
        assert np.abs(frame.astype(int) - expected).max() <= 1
        assert ours[:3] == theirs[:3]
        np.testing.assert_array_equal(env.render(), colour.step(action)[0])


def test_a_lost_life_ends_an_episode_and_not_the_game_and_no_point_is_lost() -> None:
    # given the same games, lives as episodes and as ALE plays them
    env, ale = atari.make(INVADERS, 2), stacks_of_ale("space_invaders", 2)
    env.reset(seed=SEED)
    ended = over = np.zeros(2, np.bool_)
    score = true_score = np.zeros(2)
    episodes, scores, rewards_seen = 0, [], set()
    for actions in random_actions(env, 300):
        # when the step after a lost life has any action, and ALE's a no-op in its place
        frames, rewards, terminated, truncated, infos = env.step(actions)
        theirs = ale.step(np.where(ended & ~over, 0, actions))

        # then they stay the same games, and that step's row reports nothing
        np.testing.assert_array_equal(frames, theirs[0][:, -1])
        np.testing.assert_array_equal(infos["game_over"], theirs[2] | theirs[3])
        assert not (rewards[ended].any() or terminated[ended].any() or truncated[ended].any())

        # and a game that is over is worth the same
        ended, over = terminated | truncated, infos["game_over"]
        assert (ended | ~over).all()
        score, true_score = score + rewards, true_score + theirs[1]
        np.testing.assert_array_equal(score[over], true_score[over])
        scores += list(score[over])
        score, true_score = score * ~over, true_score * ~over
        episodes += int(ended.sum())
        rewards_seen |= set(rewards)

    # and there were several lives in a game, and rewards that are not clipped
    assert scores and episodes >= 2 * len(scores)
    assert max(scores) > 20 and max(rewards_seen) > 1


class Scripted:
    """A stand-in for ALE: one game of given rewards, ends and lives; its frames are numbered."""

    num_envs = 1
    truncates = False  # as the time limit does
    single_observation_space = spaces.Box(0, 255, (1, 84, 84), np.uint8)
    single_action_space = spaces.Discrete(3)
    action_space = spaces.MultiDiscrete([3])

    def __init__(self, lives: int, *steps: tuple[int, bool, int]) -> None:
        self.lives, self.steps, self.actions = lives, iter(steps), []

    def reset(self, seed: Any = None) -> Any:
        return self._frames(), {"lives": np.array([self.lives], np.int32)}

    def step(self, actions: NDArray[np.int64]) -> Any:
        self.actions.append(int(actions[0]))
        reward, over, lives = (np.array([value]) for value in next(self.steps))
        ends = (np.zeros(1, np.bool_), over) if self.truncates else (over, np.zeros(1, np.bool_))
        return self._frames(), reward, *ends, {"lives": lives}

    def _frames(self) -> NDArray[np.uint8]:
        return np.full((1, 1, 84, 84), len(self.actions), np.uint8)


def steps_of(ale: Any, steps: int) -> list[Any]:
    """What steps with action 2 give."""
    env = atari.AtariVector(ale, whole_games=False)
    env.reset(seed=0)
    return [env.step(np.array([2])) for _ in range(steps)]


def played(ale: Any, steps: int) -> tuple[list[float], list[bool], list[bool]]:
    """Rewards, terminated and game_over of steps with action 2."""
    rows = steps_of(ale, steps)
    return (
        [float(row[1][0]) for row in rows],
        [bool(row[2][0]) for row in rows],
        [bool(row[4]["game_over"][0]) for row in rows],
    )


def test_what_happens_in_the_no_op_that_begins_a_life_is_reported_by_the_next_step() -> None:
    # given a game that ends, with points and lives, right after a life; then ALE resets it
    ale = Scripted(3, (1, False, 2), (30, True, 1), (0, False, 3), (0, False, 3), (5, False, 3))

    # when
    rewards, terminated, game_over = played(ale, 5)

    # then no row after an end reports anything, and nothing is lost
    assert ale.actions == [2, 0, 2, 0, 2]
    assert rewards == [1, 0, 30, 0, 5]
    assert terminated == [True, False, True, False, False]
    assert game_over == [False, False, True, False, False]


def test_a_life_that_is_lost_in_that_no_op_ends_with_the_next_step() -> None:
    # given a game that loses the second life right after the first
    ale = Scripted(4, (1, False, 3), (0, False, 2), (2, False, 2), (0, False, 2), (5, False, 2))

    # when / then
    assert played(ale, 5) == (
        [1, 0, 2, 0, 5],
        [True, False, True, False, False],
        [False] * 5,
    )


def test_a_game_that_the_time_limit_cuts_in_that_no_op_is_bootstrapped_from_its_own_end() -> None:
    # given a limit that is reached right after a lost life; then ALE begins the next game
    ale = Scripted(3, (1, False, 2), (0, True, 2), (0, False, 3), (0, False, 3), (5, False, 3))
    ale.truncates = True

    # when
    rows = steps_of(ale, 5)

    # then the row that reports it has the last frame of that game, and the next row the new game's
    assert [bool(row[3][0]) for row in rows] == [False, False, True, False, False]
    assert [int(row[0][0, 0, 0]) for row in rows] == [1, 2, 2, 4, 5]


def test_the_last_life_ends_with_the_game() -> None:
    # given a game that plays on for a step when its last life is gone
    ale = Scripted(1, (1, False, 0), (5, True, 0), (0, False, 1))

    # when / then
    assert played(ale, 3) == ([1, 5, 0], [False, True, False], [False, True, False])
    assert ale.actions == [2, 2, 0]


def test_a_game_starts_with_up_to_thirty_no_ops() -> None:
    env = atari.make(PONG, 1)
    env.reset(seed=SEED)
    no_ops = {int(env.reset()[1]["episode_frame_number"][0]) for _ in range(80)}
    assert len(no_ops) > 20
    assert (min(no_ops), max(no_ops)) == (0, 30)


def test_the_time_limit_truncates_a_game() -> None:
    # given a limit of three steps, which is one in emulator frames
    assert atari_rules.rules_of().max_num_frames_per_episode == 4 * 27_000
    rules = atari_rules.rules_of(Variant(max_episode_steps=3))
    env = atari.make(PONG, 1, rules=rules)
    env.reset(seed=SEED)

    # when
    steps = [env.step(np.zeros(1, np.int64)) for _ in range(7)]

    # then the third step ends it, the fourth begins the next one
    assert [bool(step[3][0]) for step in steps] == [False, False, True, False, False, False, True]
    assert [bool(step[4]["game_over"][0]) for step in steps] == [bool(s[3][0]) for s in steps]
    assert not any(step[2][0] for step in steps)


@pytest.mark.parametrize(
    ("env_id", "is_one"),
    [
        (PONG, True),
        ("ale_py:ALE/Pong-v5", True),
        ("CartPole-v1", False),
        ("impala/ShortCorridor-v0", False),
        ("mine:ALE/Pong-v5", False),
    ],
)
def test_a_game_is_recognised_by_its_id(env_id: str, is_one: bool) -> None:
    assert atari_rules.is_atari(env_id) == is_one


def test_an_unknown_game_names_a_near_one() -> None:
    sentence = r"no Atari game 'ALE/MsPackman-v5'; ids look like .* nearest is ALE/MsPacman-v5"
    with pytest.raises(UnsupportedEnvironment, match=sentence):
        atari.make("ALE/MsPackman-v5", 1)


def test_without_ale_py_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py.vector_env", None)
    sentence = r"ALE/Pong-v5 needs ale-py: run pip install 'impala-redis\[atari\]'"
    with pytest.raises(UnsupportedEnvironment, match=sentence):
        atari.make(PONG, 1)


@pytest.mark.parametrize(
    "older",
    [
        *("PongNoFrameskip-v4", "Pong-v5", "Pong-v0", "Pong-v4", "PongDeterministic-v4"),
        *("Pong-ramNoFrameskip-v4", "Pong-ram-v0", "ale_py:PongNoFrameskip-v4", "ale_py:Pong-v4"),
        *("Pong", "PongNoFrameskip", "ale_py:Pong", "gym:Pong", "ALE/Pong"),
        *("gym:PongNoFrameskip-v4", "gymnasium:Pong-v0", "ALE/PongNoFrameskip-v4", "ALE/Pong-v4"),
    ],
)
def test_an_older_name_of_a_game_leads_to_the_one_that_is_played(older: str) -> None:
    with pytest.raises(UnsupportedEnvironment, match=r"ALE/Pong-v5"):
        VectorEnvironment(older, 1)


def test_a_module_that_registers_ales_own_ids_leads_there_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my_atari.py").write_text(
        "import ale_py, gymnasium\ngymnasium.register_envs(ale_py)"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnsupportedEnvironment, match=r"give --env ALE/Breakout-v5"):
        VectorEnvironment("my_atari:BreakoutNoFrameskip-v4", 1)


def test_a_users_own_pong_is_not_taken_for_an_older_name() -> None:
    entry_point = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    gymnasium.register("Pong-v77", entry_point)
    environment = VectorEnvironment("Pong-v77", 1)
    del gymnasium.registry["Pong-v77"]
    assert environment.observation.shape == (4,)
