"""Blocks of which no finite update can be made: they cost themselves, and never the run."""

from typing import Any

import numpy as np
import pytest
from updates import figures_after

from impala_redis.common.blocks.trajectory import Episode, Trajectory, empty_trajectory
from impala_redis.common.feeding.batch import Batch, Part
from impala_redis.common.learning.engine import Rates
from impala_redis.common.learning.engines import make_engine
from impala_redis.common.learning.learner import MOST_TRIES, Learner
from impala_redis.common.records.window import Played
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec

pytestmark = pytest.mark.fault(61)

T, WIDTH = 4, 3
HUGE = 3.4e38
KINDS: dict[str, tuple[ActionSpec, dict[str, Any]]] = {
    "choices, relu": (discrete(3), {"activation": "relu"}),
    "choices, tanh": (discrete(3), {"activation": "tanh"}),
    "numbers": (ActionSpec("continuous", (2,)), {"activation": "tanh"}),
    "memory": (discrete(3), {"activation": "tanh", "lstm_size": 4}),
}


def make_learner(kind: str = "choices, relu", engine: str = "auto") -> tuple[RunSpec, Learner]:
    """A learner in torch, or in what it is usually computed in: numpy, but for the memory."""
    action, values = KINDS[kind]
    fixed: dict[str, Any] = {"unroll_length": T, "hidden_sizes": (8,), "reward_clipping": "none"}
    config = Config().replace(fixed | values)
    spec = make_spec("test", config, ObservationSpec((2,), "float32"), action)
    return spec, Learner(config, make_engine(engine, "cpu", 1, spec, config))


def make_data(spec: RunSpec, actors: str, seed: int = 0) -> Batch:
    """A full batch: a block of three columns and one ended episode of each actor."""
    rng = np.random.default_rng(seed)
    batch = Batch(empty_trajectory(spec, WIDTH * len(actors)))
    for array in batch.rows:
        array[...] = 0
    rows = batch.rows
    rows.observations[:] = rng.normal(size=rows.observations.shape)
    rows.rewards[:] = rng.normal(size=rows.rewards.shape)
    rows.behaviour_log_probs[:] = -1.0
    rows.discounts[:] = rows.mask[:] = 1
    batch.filled, batch.frames = batch.size, rows.frames
    batch.versions = [0] * batch.size
    for number, actor in enumerate(actors):
        batch.parts.append(Part((actor, 1), slice(number * WIDTH, (number + 1) * WIDTH)))
        batch.episodes.append(Episode(float(number), 3, 0))
        batch.blocks.append(Played((actor, 1), WIDTH, True, (batch.episodes[-1],)))
    return batch


def spoil(batch: Batch, actor: str, name: str = "rewards", legal_value: float = HUGE) -> None:
    """Puts numbers into a column of that actor's, with which no update is finite."""
    for part in batch.parts:
        if part.actor[0] == actor:
            legal = name in ("rewards", "actions")
            getattr(batch.rows, name)[:, part.columns.start + 1] = legal_value if legal else np.nan


def weights_of(learner: Learner) -> dict[str, Any]:
    return {name: array.tolist() for name, array in learner.weights().items()}


@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("choices, relu", "observations"),
        ("choices, relu", "rewards"),
        ("choices, tanh", "rewards"),
        ("numbers", "actions"),
        ("memory", "memory"),
    ],
)
def test_an_update_is_made_of_the_blocks_that_allow_one(kind: str, name: str, engine: str) -> None:
    # given blocks of four actors, of which the third's have a number that spoils the update
    spec, learner = make_learner(kind, engine)
    batch = make_data(spec, "abcd")
    spoil(batch, "c", name)
    before = weights_of(learner)

    # when
    figures = figures_after(learner, batch)

    # then the update is that of the others
    assert np.isfinite(figures["grad_norm"])
    assert learner.skipped == learner.faults_in_a_row == 0
    assert weights_of(learner) != before
    assert (learner.version, learner.frames) == (1, 3 * WIDTH * T)
    other_spec, other = make_learner(kind, engine)
    good = make_data(other_spec, "abcd")
    for mine, theirs in zip(good.rows, batch.rows, strict=True):
        mine[...] = theirs
    kept = [column for column in range(12) if not 6 <= column < 9]
    small = Batch(empty_trajectory(other_spec, 9))
    for mine, theirs in zip(small.rows, good.rows, strict=True):
        mine[...] = theirs[:, kept]
    other.update(small)
    for parameter, array in other.weights().items():
        np.testing.assert_allclose(learner.weights()[parameter], array, rtol=1e-5, atol=1e-7)

    # and nothing of that block counts, nor its episode
    assert batch.unfit == [Part(("c", 1), slice(6, 9))]
    assert [episode.episode_return for episode in batch.episodes] == [0.0, 1.0, 3.0]
    assert [len(block.episodes) for block in batch.blocks] == [1, 1, 0, 1]
    assert list(batch.blocks[2].left_out) == [0, 1, 2]
    assert learner.window.episodes == 3


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("action", [1e20, 1e30])
def test_a_block_whose_loss_is_infinite_is_left_out_though_its_gradients_are_not(
    action: float, engine: str
) -> None:
    # given numbers so far from the mean that their square is infinite, and pi/mu is 0
    spec, learner = make_learner("numbers", engine)
    batch = make_data(spec, "abcd")
    spoil(batch, "c", "actions", action)

    # when
    figures = figures_after(learner, batch)

    # then
    assert [part.actor[0] for part in batch.unfit] == ["c"]
    assert all(np.isfinite(figure) for figure in figures.values())


def test_blocks_that_nearly_allow_none_are_left_out_with_those_that_do_not() -> None:
    # given a block that allows no update, and one whose gradients are finite, but above 1e15
    spec, learner = make_learner()
    batch = make_data(spec, "abc")
    spoil(batch, "a", "observations")
    batch.rows.rewards[:, WIDTH : 2 * WIDTH] = 1e17

    # when
    learner.update(batch)

    # then the sum of many such gradients is never tried
    assert [part.actor[0] for part in batch.unfit] == ["a", "b"]
    assert learner.skipped == 0


def test_replayed_columns_stay_in_an_update_that_leaves_blocks_out() -> None:
    # given the same columns, of which the first come from an actor or from the replay memory
    weights = []
    for replayed in (0, WIDTH):
        spec, learner = make_learner()
        batch = make_data(spec, "abc")
        spoil(batch, "b")
        batch.replayed = replayed
        if replayed:
            del batch.parts[0], batch.blocks[0], batch.episodes[0]

        # when
        learner.update(batch)
        weights.append(weights_of(learner))

    # then they are trained on alike
    for name, ours in weights[0].items():
        assert np.array_equal(ours, weights[1][name]), name


def test_a_flood_of_such_blocks_is_no_fault_of_the_network() -> None:
    # given an actor whose blocks were fit
    spec, learner = make_learner()
    learner.update(make_data(spec, "a"))
    before = weights_of(learner)

    # when a stranger's fill thirty updates, under one name or under another each time
    for number in range(30):
        name = "xy"[number % 2]
        batch = make_data(spec, name * 4)
        spoil(batch, name)
        learner.update(batch)

    # then these updates are skipped, and the run has no reason to end
    assert (learner.skipped, learner.faults_in_a_row) == (30, 0)
    assert weights_of(learner) == before
    assert learner.frames == WIDTH * T


def test_a_flood_before_any_good_block_is_no_fault_of_the_network_either() -> None:
    spec, learner = make_learner()
    for _ in range(30):
        batch = make_data(spec, "xx")
        spoil(batch, "x")
        learner.update(batch)
    assert (learner.skipped, learner.faults_in_a_row) == (30, 0)


def test_a_run_whose_blocks_all_cease_to_allow_updates_waits_for_a_good_one() -> None:
    # given two actors whose blocks were fit
    spec, learner = make_learner()
    learner.update(make_data(spec, "ab"))

    # when nobody's are any more, which strangers could pretend
    for name in "aba":
        batch = make_data(spec, name)
        spoil(batch, name)
        learner.update(batch)

    # then it is counted, and the next good one makes an update
    assert (learner.skipped, learner.faults_in_a_row) == (3, 0)
    before = weights_of(learner)
    learner.update(make_data(spec, "a"))
    assert (learner.skipped, learner.faults_in_a_row) == (3, 0)
    assert weights_of(learner) != before


@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize("value", [1e30, 1e38])
def test_a_network_that_has_grown_too_large_is_at_fault_whoever_sends(
    value: float, engine: str
) -> None:
    # given an actor whose blocks were fit, and is silent now
    spec, learner = make_learner(engine=engine)
    learner.update(make_data(spec, "a"))
    grown = {name: np.full_like(array, value) for name, array in learner.weights().items()}
    learner.engine.load(grown, grown, learner.engine.slots(), learner.engine.steps)

    # when
    for _ in range(3):
        learner.update(make_data(spec, "b"))

    # then
    assert learner.faults_in_a_row == learner.skipped == 3


def test_the_search_for_unfit_blocks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a batch of 200 blocks, all spoiled but two
    spec, learner = make_learner()
    batch = make_data(spec, "a" + "x" * 198 + "b")
    spoil(batch, "x")
    sizes = []
    allows_step = learner.engine.allows_step

    def counted(rows: Trajectory, rates: Rates) -> bool:
        sizes.append(rows.actions.shape[1])
        return allows_step(rows, rates)

    monkeypatch.setattr(learner.engine, "allows_step", counted)

    # when
    learner.update(batch)

    # then it took some passes at most, and what it found first was trained on
    assert len(sizes) <= MOST_TRIES
    assert sum(sizes) < 4 * batch.size
    assert learner.skipped == 0
    assert Part(("a", 1), slice(0, 3)) not in batch.unfit


def test_an_actor_whom_a_flood_hides_is_left_out_and_the_run_goes_on() -> None:
    # given an actor whose blocks were fit
    spec, learner = make_learner()
    learner.update(make_data(spec, "a"))

    # when it goes on, behind more spoilt blocks of strangers in each batch than are looked through
    for number in range(25):
        strangers = "".join(chr(ord("A") + number + 60 * i) for i in range(40))
        batch = make_data(spec, strangers + "a")
        for name in strangers:
            spoil(batch, name)
        learner.update(batch)

        # then nobody learns from it meanwhile
        assert Part(("a", 1), slice(120, 123)) in batch.unfit

    # but the run has no reason to end
    assert (learner.skipped, learner.faults_in_a_row) == (25, 0)
