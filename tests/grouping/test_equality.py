"""Learners of a group that train on the parts of a batch learn what one learner does on it all."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from adding import COLUMNS, UPDATES
from companions import NUMBERS, TWO, Companions, cut, one_learner, run_of, some_batch
from recorded import recorded
from updates import POPART, REMEMBERING, figures_after

from chaos.servers import free_port
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.grouping.group_learner import GroupLearner
from impala_redis.common.learning.gpu_engine import UPDATES_BEFORE_GRAPH
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec
from impala_redis.common.run.spec import RunSpec
from masked import ONE_CHOICE, masked
from support import ROOT, Programs

pytestmark = pytest.mark.usefixtures("one_thread")

ADDING = Path(__file__).with_name("adding.py")

# Its buffers say what it has seen, in a new tensor, and how often, in place.
WATCHING = """
import torch
from torch import nn


class Watching(nn.Module):
    features_dim = 8

    def __init__(self, observation_space):
        super().__init__()
        self.layer = nn.Linear(4, 8)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, observations):
        features = self.layer(observations - self.mean).tanh()
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * observations.mean(0)
            self.passes += 1
        return features
"""


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_learners_are_one_with_the_whole_batch(reduction: str, optimizer: str) -> None:
    # given
    spec, config = run_of(reduction=reduction, optimizer=optimizer)
    one, group = one_learner(spec, config), Companions(spec, config)

    # when
    for seed in range(200):
        batch = some_batch(spec, seed, columns=6)
        (ended,), _ = group.update(cut(batch, 2))
        expected = figures_after(one, batch)

    # then
    assert timeless(ended.figures) == pytest.approx(timeless(expected), rel=1e-4, abs=1e-5)
    first, second = (learner.engine.flat() for learner in group.learners)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, one.engine.flat(), rtol=0, atol=1e-6)


@pytest.mark.processes
def test_two_processes_learn_by_gloo_what_one_learner_does(
    programs: Programs, tmp_path: Path
) -> None:
    # when
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    where = [str(tmp_path), str(free_port())]
    code, output = programs.run("python", str(ADDING), *where, timeout_s=100, PYTHONPATH=path)

    # then
    assert code == 0, output
    spec, config = run_of(reduction="mean", optimizer="adam")
    one = one_learner(spec, config)
    for seed in range(UPDATES):
        figures_after(one, some_batch(spec, seed, COLUMNS))
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, one.engine.flat(), rtol=0, atol=1e-6)


class Kind(NamedTuple):
    changes: dict[str, Any]
    observation: ObservationSpec = NUMBERS
    action: ActionSpec = TWO


KINDS = {
    "normalised observations and rewards": Kind(
        {"normalize_observations": True, "normalize_rewards": True, "reward_clipping": "none"}
    ),
    "normalised advantages": Kind({"normalize_advantages": True}),
    "whole returns": Kind({"returns": "monte_carlo", "correction": "none"}),
    "a memory": Kind(REMEMBERING),
    "three tasks by PopArt": Kind(POPART),
    "numbers for actions": Kind({}, action=ActionSpec("continuous", (2,), bounded=True)),
    "action masks": Kind({}, masked(), ONE_CHOICE),
    "a network of the user's own": Kind({"network": "watching:Watching"}),
}
RECORDED = {name: kind for name, kind in KINDS.items() if name != "normalised advantages"}


@pytest.fixture(autouse=True)
def _their_network(own_folder: Path) -> None:
    (own_folder / "watching.py").write_text(WATCHING)


def run_of_kind(kind: Kind, **changes: Any) -> tuple[RunSpec, Config]:
    return run_of(kind.observation, kind.action, **{"optimizer": "adam", **kind.changes, **changes})


def timeless(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not name.endswith("_s")}


@pytest.mark.parametrize("name", KINDS)
def test_a_group_of_three_learns_and_tells_what_one_learner_does(name: str) -> None:
    # given
    spec, config = run_of_kind(KINDS[name], reduction="mean")
    one, group = one_learner(spec, config), Companions(spec, config, ranks=3)

    # when
    for seed in range(6):
        batch = some_batch(spec, seed, columns=6)
        each = group.update(cut(batch, 3))
        expected = timeless(figures_after(one, batch))

        # then
        first, *others = (timeless(ended[0].figures) for ended in each)
        assert all(figures == first for figures in others)
        assert first == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert_alike(group.learners, one)


def assert_alike(learners: list[GroupLearner], one: Any) -> None:
    """All learners have the same bits, and what one has within 1e-6."""
    tensors, facts = one.state()
    (firsts, first_facts), *others = (learner.state() for learner in learners)
    assert first_facts == facts
    for name, tensor in tensors.items():
        np.testing.assert_allclose(firsts[name], tensor, rtol=1e-5, atol=1e-6, err_msg=name)
    for others_tensors, others_facts in others:
        assert others_facts == facts
        for name, tensor in firsts.items():
            np.testing.assert_array_equal(others_tensors[name], tensor, err_msg=name)


@pytest.mark.parametrize("name", RECORDED)
def test_two_graphs_compute_what_their_operations_compute_one_by_one(name: str) -> None:
    # given an update that is refused, among the recorded ones
    spec, config = run_of_kind(RECORDED[name])
    graphs, one_by_one = Companions(spec, config, capture=recorded), Companions(spec, config)

    # when
    for seed in range(UPDATES_BEFORE_GRAPH + 3):
        bad = seed == UPDATES_BEFORE_GRAPH + 1
        found, expected = (
            group.update(cut(refused(some_batch(spec, seed, columns=6), bad), 2))[0][0].figures
            for group in (graphs, one_by_one)
        )

        # then
        assert ("graph_s" in found) == (seed >= UPDATES_BEFORE_GRAPH)
        np.testing.assert_equal(timeless(found), timeless(expected))
    for graph, other in zip(graphs.learners, one_by_one.learners, strict=True):
        assert graph.skipped == other.skipped == 1
        for key, tensor in other.state()[0].items():
            np.testing.assert_array_equal(graph.state()[0][key], tensor, err_msg=key)


def refused(batch: Batch, bad: bool) -> Batch:
    """The batch; a bad one allows no step."""
    if bad:
        batch.rows.rewards[0] = np.nan
    return batch


def test_advantages_that_are_normalised_over_all_are_not_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec, config = run_of_kind(KINDS["normalised advantages"])
    group = Companions(spec, config, capture=recorded)
    for seed in range(UPDATES_BEFORE_GRAPH + 1):
        ((ended,), _) = group.update(cut(some_batch(spec, seed, columns=4), 2))
    assert "graph_s" not in ended.figures
    assert caplog.messages[0].startswith("updates are computed one operation after the other")


@pytest.mark.parametrize("unfit", [[4], [3, 4, 5], [0, 4]], ids=str)
@pytest.mark.parametrize("name", ["normalised advantages", "a network of the user's own"])
def test_blocks_that_allow_no_step_are_left_out_as_one_learner_does(
    name: str, unfit: list[int]
) -> None:
    # given a batch whose bad columns lie with one learner, or are all that it has
    spec, config = run_of_kind(KINDS[name], reward_clipping="none")
    one, group = one_learner(spec, config), Companions(spec, config)
    for seed in range(3):
        batch = some_batch(spec, seed, columns=6)
        if seed == 1:
            batch.rows.rewards[0, unfit] = np.inf
        halves = cut(batch, 2)

        # when
        each = group.update(halves)
        expected = timeless(figures_after(one, batch))

        # then
        for (ended,) in each:
            assert timeless(ended.figures) == pytest.approx(expected, rel=1e-4, abs=1e-5)
        left_out = [part.actor for half in halves for part in half.unfit]
        assert left_out == [(f"a{column}", 1) for column in unfit if seed == 1]
    assert_alike(group.learners, one)
    assert [learner.skipped for learner in group.learners] == [0, 0]


def test_a_network_at_fault_is_counted_alike_by_all() -> None:
    # given a network that has grown too large, alike for both
    spec, config = run_of(reward_clipping="none")
    group = Companions(spec, config)
    for learner in group.learners:
        for parameter in learner.engine.network.parameters():
            parameter.data.fill_(1e38)

    # when
    group.update(cut(some_batch(spec, 0, columns=4), 2))

    # then
    assert [(one.skipped, one.faults_in_a_row) for one in group.learners] == [(1, 1), (1, 1)]


def test_a_network_is_at_fault_for_all_or_for_none() -> None:
    # given blocks of which one learner believes that they are fit, and the other one does not
    spec, config = run_of(reward_clipping="none")
    group = Companions(spec, config)
    for learner, believes in zip(group.learners, (True, False), strict=True):
        learner.engine.allows_step = lambda *_, believes=believes: believes
    batch = some_batch(spec, 0, columns=4)
    batch.rows.rewards[0] = np.inf

    # when
    group.update(cut(batch, 2))

    # then it is skipped, and nobody comes nearer to an end by the network's fault than the others
    assert [(one.skipped, one.faults_in_a_row) for one in group.learners] == [(1, 0), (1, 0)]


def test_a_checksum_sees_all_that_travels_to_actors() -> None:
    # given
    spec, config = run_of_kind(KINDS["a network of the user's own"])
    own = Companions(spec, config).learners[0]
    normalizing = Companions(*run_of(normalize_observations=True)).learners[0]
    before = own.crc(), normalizing.crc()
    assert (own.crc(), normalizing.crc()) == before

    # when a user's own buffer changes, and what observations are normalised by
    (mean,) = (b for name, b in own.engine.network.named_buffers() if name.endswith("mean"))
    mean[0] += 1e-6
    seen = normalizing.share_of(some_batch(normalizing.engine.spec, 0, columns=2)).seen
    normalizing.normalization.take([seen])

    # then
    assert own.crc() != before[0]
    assert normalizing.crc() != before[1]


def test_a_learner_takes_over_all_but_the_random_numbers_and_a_changed_one_is_seen() -> None:
    # given a group whose second learner begins late
    spec, config = run_of(normalize_observations=True)
    group, fresh = Companions(spec, config), Companions(spec, config)
    group.update(cut(some_batch(spec, 0, columns=4), 2))
    first, second = group.learners[0], fresh.learners[1]
    assert second.crc() != first.crc()

    # when
    state, random_state = first.as_bytes(), first.engine.random_state
    second.take_over(state)

    # then
    assert second.crc() == first.crc()
    assert (second.updates, second.frames) == (first.updates, first.frames) != (0, 0)
    assert (second.engine.random_state != random_state).any()
    first.take_over(state)  # in the same process, whose random numbers both have
    np.testing.assert_array_equal(first.engine.random_state, random_state)

    # when one bit changes by hand
    second.engine.network.policy.bias.data[0] += 1e-6

    # then
    assert second.crc() != first.crc()
