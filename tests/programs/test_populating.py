"""A learner's part in a population, without its programs: what it does when others do badly."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from updates import figures_after, make_config, make_data, spec_of

from chaos.servers import OpenServer
from impala_redis.common.errors import ConfigError
from impala_redis.common.learning.engines import make_engine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.population.link import PopulationLink
from impala_redis.common.run.spec import make_spec
from impala_redis.workers.populating import MOST_FAULTS, Populating, fitness_of, member_of
from impala_redis.workers.terms import Terms

CONFIG = make_config(total_frames=10**9, learning_rate_schedule="constant", discounting=0.5)
SPEC = spec_of(CONFIG)


class Party:
    """A learner and its part in a population; each has random weights of its own."""

    def __init__(self, url: str, population: str, seed: int) -> None:
        self.name = f"run-{seed}"
        config = CONFIG.replace({"seed": seed})
        self.learner = Learner(config, make_engine("numpy", "cpu", 1, SPEC, config))
        self.populating = Populating(url, population, 1, self.name, config)
        self.populating.begin(SPEC, self.learner)
        self.seed = seed

    def update(self) -> None:
        """Makes one, after which an interval is over."""
        self.seed += 100
        figures_after(self.learner, make_data(SPEC, self.seed))

    def step(self) -> None:
        """Does what is due, and waits for it."""
        self.populating.step(self.learner, self.learner.settle)
        thread = self.populating._thread
        if thread is not None:
            thread.join()


@pytest.fixture
def parties(redis_server: OpenServer, run_name: str) -> Iterator[list[Party]]:
    """Two whose mean returns are known: 100 for the second, which the first has not."""
    found = [Party(redis_server.url, run_name, seed) for seed in (1, 2)]
    for party in found:
        for _ in range(3):
            party.update()
    found[1].learner.window.returns = [100.0] * 100
    yield found
    for party in found:
        party.populating.close()


def copied(parties: list[Party]) -> Party:
    """The first one, which has copied the second."""
    bad, good = parties
    good.step()
    bad.step()  # it is told of the other
    bad.step()
    return bad


def test_the_state_of_a_better_member_is_gone_on_with(parties: list[Party]) -> None:
    bad, good = copied(parties), parties[1]
    np.testing.assert_array_equal(bad.learner.engine.flat(), good.learner.engine.flat())
    assert bad.learner.evolving.generation == 1
    assert good.learner.evolving.generation == 0
    assert bad.populating.figures(bad.learner)["population:generation"] == 1


def test_a_better_member_is_copied_however_many_returns_it_knows(parties: list[Party]) -> None:
    # given returns as those of a hundred tasks, in many digits
    parties[1].learner.window.returns = [100.0 / 3.0] * 10_000

    # then
    assert copied(parties).learner.evolving.generation == 1


def test_a_copy_with_which_no_update_can_be_made_is_taken_back(
    parties: list[Party], caplog: pytest.LogCaptureFixture
) -> None:
    # given a member that has copied another
    before = parties[0].learner.engine.flat()
    bad = copied(parties)
    assert (bad.learner.engine.flat() != before).any()

    # when no update can be made any more, by the network's fault
    bad.learner.faults_in_a_row = MOST_FAULTS
    bad.step()

    # then it has its own state again, and as many faults as at its start
    np.testing.assert_array_equal(bad.learner.engine.flat(), before)
    assert bad.learner.evolving.generation == 0
    assert bad.learner.faults_in_a_row == 0
    assert bad.populating.refused == 1
    assert "back to" in caplog.text


def test_a_member_that_has_just_copied_counts_as_alive_for_three_intervals(
    parties: list[Party],
) -> None:
    # given intervals of a thousand seconds
    for party in parties:
        party.populating._told_s -= 1000.0

    # when
    copied(parties)

    # then
    told = {one.name: one for one in parties[0].populating._link.census().members}
    assert told["run-1"].copied_from == "run-2"
    assert [one.fresh_s for one in told.values()] == [pytest.approx(3000.0, abs=60.0)] * 2


def test_nobody_is_told_or_copied_while_the_mean_return_is_not_known(
    parties: list[Party], redis_url: str, run_name: str
) -> None:
    bad = copied(parties)
    bad.update()
    assert bad.learner.window.mean_return is None
    bad.step()
    with_record = PopulationLink(redis_url, run_name, "impala-status --population")
    (mine, _) = with_record.census().members
    with_record.close()
    assert (mine.name, mine.fitness, mine.copied_from) == ("run-1", None, "run-2")


def test_a_server_that_is_away_is_said_once_and_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    party = Party(f"unix://{tmp_path}/none", "p", 1)

    # when several intervals pass
    for _ in range(5):
        party.update()
        party.step()

    # then
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.message.partition(":")[0] for record in said] == [
        "the population is left out until its server answers"
    ]


def test_a_run_that_gives_its_tasks_is_compared_by_its_score() -> None:
    # given
    tasks = [{"name": "one", "env": "One-v0", "random": 0.0, "reference": 50.0}]
    config = CONFIG.replace({"tasks": tasks})
    spec = make_spec("test", config, SPEC.observation, SPEC.action)
    learner = Learner(config, make_engine("numpy", "cpu", 1, spec, config))
    assert fitness_of(learner) == (None, "score")

    # when its mean return is known
    learner.window.returns = [20.0] * 100

    # then
    assert fitness_of(learner) == (0.4, "score")


def test_a_group_of_learners_is_no_member() -> None:
    job: Any = SimpleNamespace(terms=Terms(population="p"), plan=None, ranks=2)
    with pytest.raises(ConfigError, match="leave out --population"):
        member_of(job)
    job.terms = Terms()
    assert member_of(job) is None
