"""A run in a Redis Cluster: any node may be named, and the run's slot may move under way."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import MovedError

from chaos.clusters import OwnCluster
from impala_redis.common.errors import RedisDenied, RedisUnreachable, RunMissing, UnsuitableServer
from impala_redis.common.server.address import cli_command
from impala_redis.common.server.connection import connect, translated
from impala_redis.common.server.reading import NotRedis
from impala_redis.common.transport import functions
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, OperatorLink, residual
from impala_redis.common.transport.plain_push import PlainActorLink
from support import eventually

QUEUE_BLOCKS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnCluster]:
    """Two nodes, of which the first has the slots of all runs here, whenever a test begins."""
    with OwnCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def both_have_functions(cluster: OwnCluster) -> Iterator[None]:
    """An admin has put the functions on every node."""
    for node in cluster.nodes:
        with node.client() as admin:
            admin.function_load(functions.FILE.read_text(), replace=True)
    yield
    for node in cluster.nodes:
        with node.client() as admin:
            admin.function_flush("SYNC")


@pytest.mark.parametrize(
    "host",
    [
        "h:1/0?ssl_cert_reqs=none&db=",
        "u:p@h",
        "h/0",
        "h?x",
        "h#x",
        "-h",
        "$(x)",
        "fe80::1%$(x)",
        "\x1b]0;x\x07",
        "h" * 300,
    ],
)
def test_a_node_cannot_change_the_address_but_for_host_and_port(host: str) -> None:
    # given
    client = connect("rediss://u:p@first:1/0", "test")
    before = client.address

    # then
    for place in (f"{host}:2", "second:0"):
        with pytest.raises(NotRedis):
            client.follow([MovedError(f"5 {place}")])
    assert client.address == before
    assert client.follow([MovedError("5 fd00::1:2")])
    assert client.address == "rediss://u:p@[fd00::1]:2/0"
    client.close()


def can(attempt: Callable[[], object]) -> bool:
    """Whether the server takes it now."""
    try:
        attempt()
    except RedisUnreachable:
        return False
    return True


class Sides:
    """A learner, an actor and a reader of a run, each at a node that does not have the run."""

    def __init__(self, url: str, run: str) -> None:
        self.learner = LearnerLink(url, run, "host:1#x", 60.0)
        self.actor = ActorLink(url, run, "actor")
        self.monitor = MonitorLink(url, run, "test")
        self.keys = Keys(run)
        self.sequence = 0

    def open(self) -> int:
        abandoned = self.learner.open()
        self.learner.publish(1, b"weights")
        self.learner.announce("{}", "fingerprint", "running")
        return abandoned

    def push(self) -> bool:
        self.sequence += 1
        return self.actor.push("a#1", self.sequence, b"block", QUEUE_BLOCKS).stored

    def claim(self, settled: Settled = Settled()) -> list[bytes]:  # noqa: B008
        return self.learner.settle_and_claim(settled, 1)[0]

    def close(self) -> None:
        for link in (self.learner, self.actor, self.monitor):
            link.close()


@pytest.fixture
def sides(cluster: OwnCluster, run_name: str) -> Iterator[Sides]:
    made = Sides(cluster.nodes[1].url, run_name)
    yield made
    made.close()


def test_every_side_finds_the_node_that_has_the_run(
    cluster: OwnCluster, sides: Sides, run_name: str
) -> None:
    # given sides that were given another node, when they do all that they do
    assert sides.learner.check_server().maxmemory_bytes == 500 * 1024**2
    sides.open()
    assert sides.push()
    assert sides.claim() == [b"block"]
    sides.learner.renew({"loss": 1.0})
    assert sides.learner.read_flow() == (1, 0)
    sides.actor.beat("a", {"generated": 1}, 60.0)
    news = sides.actor.read_news()
    plain = PlainActorLink(cluster.nodes[1].url, run_name, "actor")
    assert plain.push("b#1", 1, b"plain", QUEUE_BLOCKS).stored
    plain.close()

    # then all of it is on the node that has the run's slot
    assert news is not None
    assert news.weights_version == 1
    reading = sides.monitor.read()
    assert reading["residual"] == 0
    assert (reading["books"]["produced"], reading["books"]["foreign"]) == (2, 1)
    assert list(reading["actors"]) == ["a"]
    assert reading["learner"]["holder"] == "host:1#x"

    # and that is the node to which messages and redis-cli are pointed
    owner = cluster.nodes[0]
    for link in (sides.learner, sides.actor, sides.monitor):
        assert link.url == owner.url
    assert cli_command(sides.monitor.url) == f"redis-cli -p {owner.port}"
    sides.learner.release()

    # and an operator who was given another node finds it, too
    sides.actor.leave("a")
    operator = OperatorLink(cluster.nodes[1].url, run_name, "test")
    with owner.client() as admin:
        there = len(admin.keys(f"{sides.keys.prefix}*"))
        assert operator.delete_run() == there > 4
        assert admin.keys(f"{sides.keys.prefix}*") == []
    operator.close()


def test_a_run_is_deleted_from_the_node_that_has_it(
    cluster: OwnCluster, sides: Sides, run_name: str
) -> None:
    # given a run that nobody works on any more
    sides.learner.check_server()
    sides.open()
    sides.learner.release()

    # when it is deleted by way of another node
    operator = OperatorLink(cluster.nodes[1].url, run_name, "status")
    assert operator.delete_run() > 0
    operator.close()

    # then
    with pytest.raises(RunMissing):
        sides.monitor.read()


def test_a_node_with_the_functions_takes_a_run_over_without_a_word(
    cluster: OwnCluster, both_have_functions: None, sides: Sides
) -> None:
    # given a run at work, with a block in the list and one in flight
    sides.open()
    for _ in range(2):
        assert sides.push()
    assert sides.claim() == [b"block"]
    before = sides.monitor.read_books()

    # when its slot goes to the other node
    cluster.move(sides.keys.stats, 0, 1)

    # then everybody goes on there at the next command, where they were
    assert sides.claim(Settled(consumed=1)) == [b"block"]
    assert sides.push()
    books = sides.monitor.read_books()
    assert residual(books) == 0
    assert books["generation"] == before["generation"]
    assert (books["consumed"], books["in_flight"], books["queued"]) == (1, 1, 1)
    sides.learner.publish(2, b"newer")
    news = sides.actor.read_news()
    assert news is not None
    assert news.weights_version == 2
    assert sides.actor.url == cluster.nodes[1].url

    # and back
    cluster.move(sides.keys.stats, 1, 0)
    assert sides.push()
    assert residual(sides.monitor.read_books()) == 0


def test_a_node_without_the_functions_gets_them_when_the_learner_opens_the_run_again(
    cluster: OwnCluster, sides: Sides
) -> None:
    # given a run with a block in flight
    sides.open()
    sides.push()
    sides.claim()
    before = sides.monitor.read_books()

    # when its slot goes to a node that has never had a run
    cluster.move(sides.keys.stats, 0, 1)

    # then both sides learn it as after a loss
    with pytest.raises(RunMissing):
        sides.push()
    with pytest.raises(RunMissing):
        sides.claim()

    # and the books come along: nothing but what was in flight is given up
    assert sides.open() == 1
    sides.sequence -= 1
    assert sides.push()
    assert sides.claim() == [b"block"]
    books = sides.monitor.read_books()
    assert residual(books) == 0
    assert books["generation"] == before["generation"]
    assert (books["produced"], books["abandoned"]) == (2, 1)
    cluster.move(sides.keys.stats, 1, 0)


def test_a_slot_on_its_way_is_waited_for(
    cluster: OwnCluster, both_have_functions: None, sides: Sides
) -> None:
    # given a run at work
    sides.open()
    sides.push()
    sides.claim()
    sides.push()

    # when its slot is on its way, with none, some and all of its keys at the new node
    slot = cluster.begin(sides.keys.stats, 0, 1)
    for most in (0, 2, 100):
        if most:
            cluster.carry(slot, 0, 1, most)

        # then what needs keys that are not there is worth another try, and nothing is final
        assert not can(sides.push)
        sides.sequence -= 1
        assert not can(sides.claim)
        can(lambda: sides.learner.publish(2, b"newer"))
        can(lambda: sides.learner.renew({}))
        can(sides.actor.read_news)

    # and once it has arrived, all goes on
    cluster.settle(slot, 0, 1)
    assert sides.push()
    assert sides.claim(Settled(consumed=1)) == [b"block"]
    books = sides.monitor.read_books()
    assert residual(books) == 0
    assert (books["produced"], books["consumed"]) == (3, 1)
    cluster.move(sides.keys.stats, 1, 0)


def test_a_node_that_is_gone_is_not_asked_for_ever(cluster: OwnCluster, sides: Sides) -> None:
    # given sides that have found the run's node
    sides.open()
    owner, named = cluster.nodes

    # when it is killed
    owner.stop()
    there = rf"{owner.port}/0 \(named by {named.url}\) \("
    with pytest.raises(RedisUnreachable, match=there):
        sides.actor.read_news()

    # then the node that they were given is asked again
    assert sides.actor.url == named.url
    with pytest.raises(RedisUnreachable):
        sides.actor.read_news()

    # and once there is one for the run again, it is found: here the same one, without its memory
    owner.start()
    eventually(lambda: can(sides.learner.read_spec) and can(sides.actor.read_spec))
    assert sides.open() == 0
    assert sides.push()
    assert sides.actor.url == owner.url


def test_the_login_goes_along_to_the_other_node(cluster: OwnCluster, run_name: str) -> None:
    # given nodes that want a password
    operators = [node.client() for node in cluster.nodes]
    for operator in operators:
        operator.config_set("requirepass", "hush")
    address = f"127.0.0.1:{cluster.nodes[1].port}/0"
    key = Keys(run_name).stats

    # when it is in the address, in both places where it may be, then it is used
    for url in (f"redis://:hush@{address}", f"redis://{address}?username=default&password=hush"):
        client = connect(url, "test")
        with translated(client):
            assert client.get(key) is None
        assert client.connection_pool.connection_kwargs["port"] == cluster.nodes[0].port
        client.close()

    # and a node that wants another one refuses it, without a secret in its words
    operators[0].config_set("requirepass", "other")
    client = connect(f"redis://:hush@{address}", "test")
    with pytest.raises(RedisDenied) as refused, translated(client):
        client.get(key)
    assert "hush" not in str(refused.value)
    assert str(cluster.nodes[0].port) in str(refused.value)
    client.close()
    for operator in operators:
        operator.config_set("requirepass", "")
        operator.close()


def test_a_node_that_lacks_its_own_name_is_on_the_same_host(
    cluster: OwnCluster, run_name: str
) -> None:
    # given a node that says MOVED 1234 :port
    named, owner = cluster.nodes[1], cluster.nodes[0]
    with named.client() as operator:
        operator.config_set("cluster-preferred-endpoint-type", "unknown-endpoint")
        client = connect(f"redis://localhost:{named.port}/0", "test")

        # when, then
        with translated(client):
            client.get(Keys(run_name).stats)
        assert client.address == f"redis://localhost:{owner.port}/0"
        operator.config_set("cluster-preferred-endpoint-type", "ip")
        client.close()


@pytest.mark.parametrize("way", ["command", "pipeline", "round trip"])
def test_nodes_that_name_each_other_are_given_up_soon(
    cluster: OwnCluster, run_name: str, way: str
) -> None:
    # given a slot that each node believes to be the other's
    key = Keys(run_name).spec
    slot = int(cluster._ask(0, "KEYSLOT", key))
    cluster._ask(0, "SETSLOT", slot, "NODE", cluster._names[1])
    link = ActorLink(cluster.nodes[1].url, run_name, "actor")
    attempts = {
        "command": link.read_spec,
        "pipeline": link.read_news,
        "round trip": lambda: link.push("a#1", 1, b"block", 4),
    }

    # when, then
    with pytest.raises(RedisUnreachable, match="moving the run's keys"):
        attempts[way]()
    cluster._ask(0, "SETSLOT", slot, "NODE", cluster._names[0])
    assert link.read_spec() is None
    link.close()


def test_another_database_than_the_first_is_refused_with_the_remedy(cluster: OwnCluster) -> None:
    client = connect(f"redis://127.0.0.1:{cluster.nodes[0].port}/1", "test")
    with pytest.raises(UnsuitableServer, match="number 0 alone, so write /0"), translated(client):
        client.ping()
    client.close()


def test_a_node_with_a_socket_leads_to_one_with_a_port(
    tmp_path: Path, cluster: OwnCluster, run_name: str
) -> None:
    # given
    with OwnCluster(tmp_path, 2, "--unixsocket", "redis.sock") as with_sockets:
        socket = with_sockets.nodes[1].directory / "data" / "redis.sock"
        client = connect(f"unix://{socket}?db=0", "test")

        # when, then
        with translated(client):
            client.set(Keys(run_name).stats, "1")
        with redis.Redis(port=with_sockets.nodes[0].port) as operator:
            assert operator.get(Keys(run_name).stats) == b"1"
        client.close()
