"""Environments with action masks: from the observation or the info, checked before they travel."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from impala_redis.common.encoding.masks import allowed
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import EnvironmentFailed, UnsupportedEnvironment
from impala_redis.common.settings.variant import AS_REGISTERED, Variant

FROM_INFO = Variant(mask_from="info")
ALL, ONE, NONE = [1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]
NO_LAST, NO_FIRST = [1, 0, 1, 0, 0], [0, 0, 0, 1, 0]


class Scripted(gymnasium.Env[Any, Any]):
    """Gives the masks of a list, one after another; an episode has three steps."""

    observation_space: spaces.Space[Any] = spaces.Dict(
        place=spaces.Box(-1, 1, (2,), np.float32), action_mask=spaces.MultiBinary(5)
    )
    action_space: spaces.Space[Any] = spaces.MultiDiscrete([3, 2])
    masks: tuple[Any, ...] = ()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.seen()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        seen, info = self.seen()
        return seen, 0.0, self.steps == 3, False, info

    def seen(self) -> tuple[Any, dict[str, Any]]:
        mask = np.array(self.masks[self.steps], np.int8)
        return {"place": np.full(2, 0.5, np.float32), "action_mask": mask}, {}


class InInfo(Scripted):
    """The same, in infos; the observation is an array."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def seen(self) -> tuple[Any, dict[str, Any]]:
        mask = self.masks[self.steps]
        return np.full(2, 0.5, np.float32), {} if mask is None else {"action_mask": mask}


class InParts(InInfo):
    """The same, beside a part of the observation's own."""

    observation_space = spaces.Dict(place=spaces.Box(-1, 1, (2,), np.float32))

    def seen(self) -> tuple[Any, dict[str, Any]]:
        seen, info = super().seen()
        return {"place": seen}, info


class InOnePart(InInfo):
    """A dict that looks like what is made of an observation that is none."""

    observation_space = spaces.Dict(observation=spaces.Box(-1, 1, (2,), np.float32))


class InBoth(InInfo):
    """Masks in observations, in the form that games of several players have them, and in infos."""

    observation_space = spaces.Dict(
        observation=spaces.Box(-1, 1, (2,), np.float32), action_mask=spaces.MultiBinary(5)
    )


class Numbers(InInfo):
    action_space = spaces.Box(-1, 1, (5,))


@pytest.fixture
def made() -> Iterator[Callable[..., VectorEnvironment]]:
    """Makes two such environments with these masks, and closes them."""
    environments: list[VectorEnvironment] = []

    def make(kind: type[Scripted], *masks: Any, variant: Variant = AS_REGISTERED) -> Any:
        gymnasium.registry.pop("Scripted-v0", None)
        gymnasium.register("Scripted-v0", entry_point=type("One", (kind,), {"masks": masks}))
        environments.append(VectorEnvironment("Scripted-v0", 2, variant=variant))
        return environments[-1]

    yield make
    for environment in environments:
        environment.close()
    gymnasium.registry.pop("Scripted-v0", None)


Make = Callable[..., VectorEnvironment]


def masks_of(environment: VectorEnvironment, rows: int = 5) -> list[Any]:
    """The masks of the first environment's observations, the last of them in its next episode."""
    found = [environment.reset(0)]
    actions = np.zeros((2, 2), np.int64)
    found += [environment.step(actions).observations for _ in range(rows - 1)]
    return [allowed(environment.observation, one)[0].astype(int).tolist() for one in found]


@pytest.mark.parametrize("kind", [InInfo, InParts], ids=["an array", "a dict"])
def test_masks_come_from_infos_where_that_is_wanted(made: Make, kind: type[Scripted]) -> None:
    # given masks of several forms, the last of them missing at the episode's end
    masks = (ONE, np.array([True, False, False, True, True]), [0.5, 0, 0, 0, 9.0], None)
    environment = made(kind, *masks, variant=FROM_INFO)

    # then
    assert masks_of(environment) == [ONE, [1, 0, 0, 1, 1], [1, 0, 0, 0, 1], ALL, ONE]
    assert environment.observation.num_features == 2


@pytest.mark.parametrize(
    ("masks", "last"), [((ALL, ONE, ALL, NONE), ALL), ((ALL, ONE, ALL, NO_LAST), [1, 0, 1, 1, 1])]
)
def test_an_empty_mask_at_an_episodes_end_means_anything(
    made: Make, masks: tuple[Any, ...], last: list[int]
) -> None:
    assert masks_of(made(Scripted, *masks)) == [ALL, ONE, ALL, last, ALL]


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (
            (NONE, ALL),
            "failed in reset: ValueError: its action_mask allows nothing for choice 1",
        ),
        ((ALL, NO_LAST), "failed in step: .* allows nothing for choice 2 of 2 while the episode"),
        ((ALL, ALL, NO_FIRST), "choice 1 of 2 while the episode goes on; allow one action, if onl"),
    ],
    ids=["reset", "the last choice", "the first choice"],
)
def test_an_empty_mask_while_the_episode_goes_on_is_refused_in_words(
    made: Make, masks: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(EnvironmentFailed, match=words):
        masks_of(made(Scripted, *masks))


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ((None,), r'gives no info\["action_mask"\]; put it into the info of every reset and step'),
        ((ONE, None), r'gives no info\["action_mask"\]'),
        (([1, 0],), r"\[1, 0\] for actions of 5 choices in all; it must be one number for each"),
        (("all",), "'all' for actions of 5 choices in all"),
    ],
    ids=["none at reset", "none at a step", "too few", "a text"],
)
def test_an_info_without_a_fitting_mask_is_refused_in_words(
    made: Make, masks: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(UnsupportedEnvironment, match=words):
        masks_of(made(InInfo, *masks, variant=FROM_INFO))


def test_numbers_as_actions_have_no_masks_from_infos(made: Make) -> None:
    with pytest.raises(UnsupportedEnvironment, match="leave out --mask-from info"):
        made(Numbers, ALL, variant=FROM_INFO)


def test_a_dict_that_could_be_taken_for_no_dict_has_no_masks_from_infos(made: Make) -> None:
    with pytest.raises(UnsupportedEnvironment, match="'observation' as their only key"):
        made(InOnePart, ALL, variant=FROM_INFO)
    with pytest.raises(UnsupportedEnvironment, match="has the action_mask in its observations"):
        made(InBoth, ALL, variant=FROM_INFO)


def test_without_masks_a_part_of_that_name_is_like_any_other(made: Make) -> None:
    # given a run that was begun before there were masks
    environment = made(Scripted, NONE, NONE, variant=Variant(mask_from=""))

    # then nothing is wrong with a mask that allows nothing
    environment.reset(0)
    environment.step(np.zeros((2, 2), np.int64))
    assert environment.observation.num_features == 7


def test_an_environment_with_a_vector_form_is_stepped_one_by_one_for_its_infos(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment = VectorEnvironment("CartPole-v1", 2, variant=FROM_INFO)
    with pytest.raises(UnsupportedEnvironment, match="CartPole-v1 gives no info"):
        environment.reset(0)
    environment.close()
    assert "not in its own vector form: --mask-from info takes single ones" in caplog.text
