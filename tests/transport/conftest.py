"""Links to a run of the test's own, on every kind of server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from parties import LEASE_S, Learners, Parties

from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.local.server_program import SERVER_VARIABLE
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.monitor import MonitorLink


@pytest.fixture
def operator(any_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A plain client, as redis-cli would be."""
    client = redis.Redis.from_url(any_server.url)
    yield client
    client.close()


@pytest.fixture
def actor(any_server: EmbeddedServer, run_name: str) -> Iterator[ActorLink]:
    link = ActorLink(any_server.url, run_name, "actor")
    yield link
    link.close()


@pytest.fixture
def monitor(any_server: EmbeddedServer, run_name: str) -> Iterator[MonitorLink]:
    link = MonitorLink(any_server.url, run_name, "monitor")
    yield link
    link.close()


@pytest.fixture
def learners(any_server: EmbeddedServer, run_name: str) -> Iterator[Learners]:
    """Makes learners of the test's run, not yet opened."""
    made: list[LearnerLink] = []

    def make(
        holder: str,
        lease_s: float = LEASE_S,
        run: str = run_name,
        rank: int = 0,
        ranks: int = 1,
    ) -> LearnerLink:
        made.append(LearnerLink(any_server.url, run, holder, lease_s, rank, ranks))
        return made[-1]

    yield make
    for link in made:
        link.close()


@pytest.fixture
def learner(learners: Learners) -> LearnerLink:
    """A learner that has opened and announced the run."""
    link = learners("first")
    link.open()
    link.announce('{"a": 1}', "fingerprint", "running")
    return link


@pytest.fixture
def own_server(
    any_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedServer]:
    """A server of the test's own, to be filled, wiped or ended; of the same kind."""
    monkeypatch.setenv(SERVER_VARIABLE, str(any_server.binary))
    with EmbeddedServer(tmp_path) as running:
        yield running


@pytest.fixture
def parties(own_server: EmbeddedServer) -> Iterator[Parties]:
    url = own_server.url
    all_of_them = Parties(
        LearnerLink(url, "run", "first", LEASE_S),
        ActorLink(url, "run", "actor"),
        MonitorLink(url, "run", "monitor"),
        redis.Redis.from_url(url),
    )
    all_of_them.learner.open()
    all_of_them.learner.announce("{}", "f", "running")
    yield all_of_them
    for party in all_of_them:
        party.close()
