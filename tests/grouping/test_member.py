"""A further learner of a group: what it imports and claims, and in which order all look at it."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from companions import Companions, cut, one_learner, run_of, some_batch
from test_rendezvous import MemoryStore
from updates import figures_after

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block, Episode, Origin, empty_trajectory
from impala_redis.common.errors import ConfigError
from impala_redis.common.grouping.facts import Facts
from impala_redis.common.grouping.rendezvous import Rendezvous
from impala_redis.common.grouping.seat import Seat
from impala_redis.common.records.window import Played
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.monitor import MonitorLink
from impala_redis.workers.feeding import start_feeder
from impala_redis.workers.job import Means
from impala_redis.workers.member import Member
from impala_redis.workers.seating import MeetingPlace
from impala_redis.workers.stopping import StopFlag
from support import eventually

pytestmark = pytest.mark.usefixtures("one_thread")

ASKED = {
    **{"run": "test", "run_dir": None, "preset_name": None, "config_file": None},
    **{"resume": False, "init_from": None},
}
NETWORK = """
from pathlib import Path

from torch import nn

Path("imported").touch()


class Net(nn.Module):
    features_dim = 4

    def __init__(self, observation_space):
        super().__init__()

    def forward(self, observations):
        return observations
"""


class GoOn(StopFlag):
    """Nobody asks to stop; without handlers of signals."""

    def __init__(self) -> None:
        self._stopped = False


@pytest.mark.parametrize(
    "named",
    [{}, {"network": "deep"}, {"network": "theirs:Other"}, {"env": "CartPole-v1,CartPole-v0"}],
)
def test_a_network_that_rank_0_alone_names_is_not_imported(
    own_folder: Path, named: dict[str, str]
) -> None:
    # given a group whose first learner tells of a network that can be imported here
    (own_folder / "theirs.py").write_text(NETWORK)
    spec, config = run_of(**{"network": "theirs:Net", "env": named.get("env", "CartPole-v1")})
    (own_folder / "imported").unlink()
    store = MemoryStore()
    seats = [Seat(rank, 2, rank, 0, "localhost", 1, serves_store=False) for rank in range(2)]
    stop = GoOn()
    first, second = (Rendezvous(store, seat, stop.wait) for seat in seats)
    place = MeetingPlace(seats[1], store, second, parent=1)  # type: ignore[arg-type]
    means = Means("redis://localhost", 0.0, "auto", "cpu", 1)
    member = Member({**ASKED, "overrides": named}, means, place, stop)

    # when
    with ThreadPoolExecutor() as threads:
        calling = threads.submit(first.call_in, Facts(config, spec, "holder").packed())
        with pytest.raises(ConfigError) as refused:
            member.run()
        assert calling.result(10)

    # then
    assert str(refused.value) == (
        "learner 0 of the group trains the network theirs:Net, which the command of this learner "
        "does not name; give all learners the same --network"
    )
    assert not (own_folder / "imported").exists()


@pytest.fixture
def links(redis_url: str, run_name: str) -> Iterator[list[LearnerLink]]:
    """Those of the two learners of a group."""
    with contextlib.ExitStack() as opened:
        both = [
            opened.enter_context(
                contextlib.closing(LearnerLink(redis_url, run_name, "group", 30.0, rank, 2))
            )
            for rank in range(2)
        ]
        both[0].open()
        both[0].announce("{}", "f", "running")
        both[1].join()
        yield both


@pytest.mark.parametrize(("rank", "ahead", "taken"), [(0, 0, 1), (0, 1, 0), (1, 1, 1), (1, 2, 0)])
def test_weights_may_be_one_version_ahead_of_a_learner_that_does_not_publish(
    links: list[LearnerLink], redis_url: str, rank: int, ahead: int, taken: int
) -> None:
    # given a learner, and a block that was played with so much newer weights than its own
    spec, config = run_of(envs_per_actor=2, batch_size=2)
    learner = one_learner(spec, config)
    learner.version = 5
    rows = empty_trajectory(spec, 2)
    for array in rows:
        array[...] = 0
    rows.mask[...] = True
    block = Block(Origin("a", 1, 1, 5 + ahead), rows, (), 0.01)
    with contextlib.closing(ActorLink(redis_url, links[0].run, "actor")) as actor:
        assert actor.push("a#1", 1, wire.pack_block(block, spec), 100).stored

    # when
    feeder = start_feeder(links[rank], spec, config, learner, lambda: None)
    try:
        if taken:
            assert feeder.next_batch(20.0) is not None
        else:
            eventually(lambda: feeder.figures()["blocks_refused"])
    finally:
        feeder.close()

    # then
    with contextlib.closing(MonitorLink(redis_url, links[0].run, "test")) as monitor:
        books = monitor.read_books()
    assert books.get("dead_lettered:range", 0) == 1 - taken


def test_an_actors_first_block_is_looked_at_first_whichever_learner_has_it() -> None:
    # given a batch of two blocks of an actor, of which rank 1 has the first
    spec, config = run_of()
    one, group = one_learner(spec, config), Companions(spec, config)
    batch = some_batch(spec, 0, columns=2)
    ends = [[Episode(float(number), 5, 0) for number in range(60)] for _ in range(2)]
    first, later = (Played(("a", 1), 1, begins, ends[not begins]) for begins in (True, False))
    batch.blocks = [first, later]
    parts = cut(batch, 2)
    parts[0].blocks, parts[1].blocks = [later], [first]

    # when
    figures_after(one, batch)
    group.update(parts)

    # then all know the mean return that one learner knows
    for learner in group.learners:
        assert learner.window.mean_return == one.window.mean_return
        assert list(learner.window.returns) == list(one.window.returns)
        assert learner.window.episodes == 120
    assert one.window.mean_return is not None
