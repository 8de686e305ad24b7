"""Several games of Atari share one set of actions: all 18, unless somebody says otherwise."""

import pytest

from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.games.atari_rules import with_full_actions
from impala_redis.common.settings.variant import Variant
from impala_redis.common.tasks.task import Task
from impala_redis.common.tasks.worlds import worlds_of

PONG, FREEWAY = Task("pong", "ALE/Pong-v5"), Task("freeway", "ALE/Freeway-v5")
STICKY = Task("sticky", "ALE/Pong-v5", env_kwargs='{"repeat_action_probability": 0.25}')
CART = Task("cart", "CartPole-v1")


def test_each_game_has_all_actions_where_there_are_several() -> None:
    # when
    tasks = with_full_actions([STICKY, CART, FREEWAY])

    # then its other arguments stay, and so does what is no game of Atari
    assert [task.env_kwargs for task in tasks] == [
        '{"full_action_space": true, "repeat_action_probability": 0.25}',
        "{}",
        '{"full_action_space": true}',
    ]
    assert [task.name for task in tasks] == ["sticky", "cart", "freeway"]


@pytest.mark.parametrize(
    ("tasks", "env_kwargs"),
    [
        ((), "{}"),
        ((PONG, STICKY, CART), "{}"),  # one game, in two forms
        ((PONG, FREEWAY), '{"full_action_space": false}'),
    ],
)
def test_nothing_changes_for_one_game_or_where_the_run_says_it(
    tasks: tuple[Task, ...], env_kwargs: str
) -> None:
    assert with_full_actions(tasks, env_kwargs) == tasks


def test_a_task_that_says_it_keeps_its_own_set() -> None:
    own = Task("own", "ALE/Breakout-v5", env_kwargs='{"full_action_space": false}')
    assert with_full_actions((PONG, own))[1] == own


def test_games_of_different_sets_can_share_a_network() -> None:
    pytest.importorskip("ale_py")
    sizes = []
    for tasks in ((PONG, FREEWAY), with_full_actions((PONG, FREEWAY))):
        for world in worlds_of(tasks[0].env, Variant(), tasks):
            environment = VectorEnvironment(world.env, 1, variant=world.variant)
            sizes.append(environment.action.sizes)
            environment.close()
    assert sizes == [(6,), (3,), (18,), (18,)]
