"""A run whose server is named by sentinels: they are asked for it, and a fail-over is followed."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from chaos.clusters import DOWN_AFTER_S, MASTER, OwnSentinels
from chaos.servers import OwnServer, free_port
from impala_redis.common.errors import (
    ImpalaError,
    RedisDenied,
    RedisUnreachable,
    ServerDemoted,
)
from impala_redis.common.server.address import Place, parse
from impala_redis.common.server.connection import connect, translated
from impala_redis.common.server.sentinel import ASK_AGAIN_S, ASK_ALL_S, Sentinels, _Master
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import eventually


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnSentinels]:
    """A master, a replica and three sentinels."""
    with OwnSentinels(tmp_path_factory.mktemp("sentinels")) as running:
        yield running


def reached(url: str) -> int:
    """The port of the server to which an address leads."""
    client = connect(url, "test")
    try:
        with translated(client):
            return int(client.info("server")["tcp_port"])
    finally:
        client.close()


def refused(url: str) -> ImpalaError:
    """Why an address leads nowhere."""
    with pytest.raises(ImpalaError) as caught:
        reached(url)
    return caught.value


def test_the_sentinels_lead_to_the_master_in_any_order_and_number(sentinels: OwnSentinels) -> None:
    # given
    one, two, three = (f"127.0.0.1:{port}" for port in sentinels.ports)
    gone = f"127.0.0.1:{free_port()}"

    # then
    for places in (
        f"{one},{two},{three}",
        f"{three},{one}",
        two,
        f"{gone},{three}",
        f"{gone},{gone},{one},{gone}",
    ):
        for scheme in ("redis+sentinel", "valkey+sentinel", " REDIS+SENTINEL"):
            assert reached(f"{scheme}://{places}/{MASTER}") == sentinels.master().port


def test_messages_and_hints_name_the_server_once_it_is_known(sentinels: OwnSentinels) -> None:
    # given
    link = MonitorLink(f"{sentinels.url}/3", "run", "test")
    assert link.url == f"{sentinels.url}/3"

    # when
    link.read_spec()

    # then
    assert link.url == f"redis://127.0.0.1:{sentinels.master().port}/3"
    link.close()


def test_a_master_that_is_demoted_alive_is_left(sentinels: OwnSentinels) -> None:
    # given connections to the master
    eventually(sentinels.in_step)
    master = sentinels.master()
    client = connect(sentinels.url, "test")
    with translated(client):
        client.set("demoted", "0")

    # when the other one is made the master
    with redis.Redis(port=sentinels.ports[0]) as operator:
        operator.execute_command("SENTINEL FAILOVER", MASTER)
    sentinels.wait_for_another(master)
    with master.client() as operator:  # by hand, since the sentinels take 8 s for that
        operator.replicaof("127.0.0.1", sentinels.master().port)

    # then what is written arrives there
    def writes() -> bool:
        try:
            with translated(client):
                return bool(client.set("demoted", "1"))
        except RedisUnreachable:
            return False

    eventually(lambda: writes() and sentinels.master().client().get("demoted") == b"1")
    assert client.address.endswith(f":{sentinels.master().port}/0")
    client.close()


def test_a_replica_that_a_sentinel_still_calls_the_master_is_said_to_be_one(
    tmp_path: Path, sentinels: OwnSentinels, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given sentinels that are behind
    eventually(sentinels.in_step)
    late = _Master(9, "127.0.0.1", sentinels.other().port)
    monkeypatch.setattr(Sentinels, "_ask", lambda *_: late)
    client = connect(sentinels.url, "test")

    # when, then
    with pytest.raises(ServerDemoted, match="is a replica now"), translated(client):
        client.set("key", "value")
    client.close()


def test_the_latest_answer_counts_and_not_the_first(
    sentinels: OwnSentinels, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given sentinels of which one and then another is behind
    asked = Sentinels(parse(sentinels.url))
    epochs = [4, 6, 5]

    def answer(_: Sentinels, place: Place, name: str) -> _Master:
        epoch = epochs[sentinels.ports.index(place.port)]
        return _Master(epoch, f"host-{epoch}", 1)

    monkeypatch.setattr(Sentinels, "_ask", answer)

    # then
    assert asked.discover_master(MASTER) == ("host-6", 1)
    epochs[0] = 7
    assert asked.discover_master(MASTER) == ("host-7", 1)


def test_a_master_that_still_answers_is_left_soon_after_it_was_replaced(
    sentinels: OwnSentinels,
) -> None:
    # given a connection to the master
    eventually(sentinels.in_step)
    master = sentinels.master()
    client = connect(sentinels.url, "test")
    with translated(client):
        client.ping()

    # when it is replaced, while nobody tells it so for some seconds
    with redis.Redis(port=sentinels.ports[0]) as operator:
        operator.execute_command("SENTINEL FAILOVER", MASTER)

    # then connections leave it as soon as a sentinel says so
    def has_left() -> bool:
        with translated(client):
            client.ping()
        return not client.address.endswith(f":{master.port}/0")

    with master.client() as operator:
        eventually(has_left, 3 * ASK_AGAIN_S)
        assert operator.role()[0] == b"master"
        sentinels.wait_for_another(master)
        operator.replicaof("127.0.0.1", sentinels.master().port)
    client.close()


def test_a_master_without_enough_replicas_is_waited_for(sentinels: OwnSentinels) -> None:
    # given a master that takes no writes without two replicas, as one that is cut off
    with sentinels.master().client() as operator:
        operator.config_set("min-replicas-to-write", 2)
        client = connect(sentinels.url, "test")

        # when, then
        with pytest.raises(RedisUnreachable, match="NOREPLICAS"), translated(client):
            client.set("key", "value")
        operator.config_set("min-replicas-to-write", 0)
        client.close()


# What keeps one from the master.


def test_sentinels_that_do_not_answer_are_named(sentinels: OwnSentinels) -> None:
    # given
    ports = [free_port() for _ in range(2)]
    places = ",".join(f"127.0.0.1:{port}" for port in ports)

    # when
    error = refused(f"redis+sentinel://u:hush@{places}/{MASTER}")

    # then it is worth another try
    assert isinstance(error, RedisUnreachable)
    for port in ports:
        assert f"127.0.0.1:{port}: Connection refused" in str(error)
    assert "redis-sentinel" in str(error)
    assert "hush" not in str(error)


def test_sentinels_that_are_frozen_are_given_up_in_time(tmp_path: Path) -> None:
    # given five of them: silent servers will do
    with ExitStack() as stack:
        silent = [stack.enter_context(OwnServer(_folder(tmp_path, n))) for n in range(2)]
        for server in silent:
            server.freeze()
        places = ",".join(f"127.0.0.1:{server.port}" for server in silent * 3)

        # when
        began = time.monotonic()
        error = refused(f"redis+sentinel://{places}/name")

        # then
        assert isinstance(error, RedisUnreachable)
        assert "Timeout reading" in str(error)
        assert time.monotonic() - began < ASK_ALL_S + 2.0


def test_a_name_that_no_sentinel_knows_and_a_server_that_is_none_are_told_apart(
    sentinels: OwnSentinels,
) -> None:
    # given
    server = sentinels.master().port
    url = f"redis+sentinel://127.0.0.1:{sentinels.ports[0]},127.0.0.1:{server}/another"

    # when
    said = str(refused(url))

    # then
    assert f"127.0.0.1:{sentinels.ports[0]}: it knows no master named 'another'" in said
    assert f"127.0.0.1:{server}: it is no sentinel" in said
    assert "the name that `sentinel monitor` gives it" in said
    assert "redis-server" not in said
    assert "start them" not in said


# Passwords.


def set_password(port: int, *rules: str) -> None:
    with redis.Redis(port=port) as operator:
        operator.execute_command("ACL", "SETUSER", "default", *rules)


def test_a_password_for_sentinels_that_want_none_is_the_fault(sentinels: OwnSentinels) -> None:
    error = refused(f"{sentinels.url}?sentinel_password=hush")
    assert isinstance(error, RedisDenied)
    assert "without any password configured" in str(error)
    assert str(error).endswith("; leave sentinel_password out of the address")


def test_sentinels_get_their_own_password_or_the_servers(sentinels: OwnSentinels) -> None:
    # given one sentinel with a password
    port, master = sentinels.ports[0], sentinels.master()
    place = f"127.0.0.1:{port}/{MASTER}"
    with redis.Redis(port=port) as operator:
        operator.execute_command("ACL", "SETUSER", "default", "resetpass", ">hush")

        # then its own is used
        assert reached(f"redis+sentinel://{place}?sentinel_password=hush") == master.port
        own = "sentinel_username=default&sentinel_password=hush"
        assert reached(f"redis+sentinel://{place}?{own}") == master.port

        # and without one, or with a wrong one, it is final, and not the fault of the server's
        for options in ("", "?sentinel_password=hash"):
            error = refused(f"redis+sentinel://{place}{options}")
            assert isinstance(error, RedisDenied)
            assert f"the sentinel at 127.0.0.1:{port}" in str(error)
            assert "sentinel_password" in str(error)
            assert "hash" not in str(error)

        # and the server's own is used when there is no other
        with master.client() as admin:
            admin.execute_command("ACL", "SETUSER", "alice", "on", ">hush", "+@all", "~*")
            operator.execute_command("ACL", "SETUSER", "alice", "on", ">hush", "+@all")
            assert reached(f"redis+sentinel://alice:hush@{place}") == master.port
        operator.execute_command("ACL", "SETUSER", "default", "nopass")

    # and sentinels without a password are not given any
    alice = f"alice:hush@127.0.0.1:{sentinels.ports[1]}"
    assert reached(f"redis+sentinel://{alice}/{MASTER}") == master.port
    error = refused(f"redis+sentinel://{alice.replace('hush', 'hash')}/{MASTER}")
    assert "refuses the user name or password" in str(error)
    assert "hash" not in str(error)


@pytest.mark.parametrize(
    "reply",
    [
        b"*2\r\n$10\r\nh?db=1&x=y\r\n$4\r\n6379\r\n",
        b"*2\r\n$6\r\n-h x;y\r\n$4\r\n6379\r\n",
        b"*2\r\n$2\r\n\xff\xfe\r\n$4\r\n6379\r\n",
        b"*2\r\n$1\r\nh\r\n$1\r\n0\r\n",
        b"*1\r\n$1\r\nh\r\n",
        b":5\r\n",
    ],
)
def test_a_sentinel_that_names_no_host_is_one_that_does_not_tell(reply: bytes) -> None:
    # given somebody who answers so to everything
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(65_536)
                        connection.sendall(reply + b"*2\r\n$5\r\nflags\r\n$6\r\nmaster\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()

        # then
        said = refused(f"redis+sentinel://127.0.0.1:{listening.getsockname()[1]}/mymaster")
        assert isinstance(said, RedisUnreachable)
        assert "no sentinel tells where the master is" in str(said)
        assert str(said).isprintable()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_tls_goes_along_to_the_sentinels() -> None:
    found = Sentinels(parse("rediss+sentinel://one/name?ssl_ca_certs=/ca&ssl_min_version=772"))
    assert found._connection is redis.SSLConnection
    assert found._tls == {"ssl_ca_certs": "/ca", "ssl_min_version": 772}
    assert Sentinels(parse("redis+sentinel://one/name"))._tls == {}


# The last test here, because a killed master takes a while to become a replica.


def test_a_killed_master_is_left_for_the_promoted_replica(sentinels: OwnSentinels) -> None:
    # given a run at work at the master, known to its replica
    learner = LearnerLink(sentinels.url, "killed", "host:1#x", 60.0)
    actor = ActorLink(sentinels.url, "killed", "actor")
    learner.open()
    learner.publish(1, b"weights")
    learner.announce("{}", "fingerprint", "running")
    assert actor.push("a#1", 1, b"block", 4).stored
    generation = MonitorLink(sentinels.url, "killed", "test").read_books()["generation"]
    eventually(sentinels.in_step)
    master = sentinels.master()
    with master.client() as operator:
        operator.incr("after all of that")
        assert operator.wait(1, 5000) == 1

    # when it is killed
    master.stop()

    def pushes() -> bool:
        try:
            return actor.push("a#1", 2, b"block", 4).stored
        except RedisUnreachable:
            return False

    # then a push goes to the other one, which has the run and its functions
    eventually(pushes, DOWN_AFTER_S + 5.0)
    sentinels.wait_for_another(master)
    assert actor.url == f"redis://127.0.0.1:{sentinels.master().port}/0"
    monitor = MonitorLink(sentinels.url, "killed", "test")
    books = monitor.read_books()
    assert residual(books) == 0
    assert (books["produced"], books["generation"]) == (2, generation)
    learner.renew({})
    learner.release()

    for link in (learner, actor, monitor):
        link.close()


def _folder(directory: Path, number: int) -> Path:
    folder = directory / str(number)
    folder.mkdir()
    return folder
