"""The proxy of the fault tests does what it says: else a fault that was never made would pass."""

import socket
import time
from collections.abc import Iterator

import pytest
import redis

from chaos.proxy import Proxy
from chaos.servers import OwnServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with OwnServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def proxy(server: OwnServer) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    with redis.Redis(port=proxy.port, socket_timeout=0.5, retry=None) as client:
        yield client


def seconds(command: object) -> float:
    started = time.perf_counter()
    assert callable(command)
    command()
    return time.perf_counter() - started


def test_without_a_toxic_it_only_forwards(client: redis.Redis) -> None:
    client.set("large", b"x" * 1_000_000)
    assert client.get("large") == b"x" * 1_000_000


def test_latency_delays_both_ways(proxy: Proxy, client: redis.Redis) -> None:
    client.ping()
    proxy.latency_s = 0.05
    assert seconds(client.ping) >= 0.1
    proxy.heal()
    assert seconds(client.ping) < 0.1


def test_a_bandwidth_is_kept(proxy: Proxy, client: redis.Redis) -> None:
    client.set("some", b"x" * 200_000)
    proxy.bytes_per_s = 1_000_000
    assert 0.15 <= seconds(lambda: client.get("some")) < 1.0


def test_slices_arrive_whole(proxy: Proxy, client: redis.Redis) -> None:
    proxy.slice_bytes = 1
    client.set("sliced", b"abc" * 100)
    assert client.get("sliced") == b"abc" * 100


def test_a_black_hole_answers_nothing_and_closes_nothing(proxy: Proxy, client: redis.Redis) -> None:
    client.ping()
    proxy.blackhole = True
    with pytest.raises(redis.TimeoutError):
        client.ping()
    proxy.heal()
    assert client.ping()


def test_a_reset_ends_what_is_open_and_lets_new_ones_in(proxy: Proxy, client: redis.Redis) -> None:
    # a bare socket: redis-py quietly replaces a connection that it finds closed
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as open_one:
        open_one.sendall(b"PING\r\n")
        assert open_one.recv(100) == b"+PONG\r\n"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            open_one.recv(100)
    assert client.ping()


def test_down_refuses_new_connections(proxy: Proxy, client: redis.Redis) -> None:
    proxy.down = True
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.ping()
    proxy.heal()
    assert client.ping()


def test_a_dropped_reply_was_executed(proxy: Proxy, client: redis.Redis, server: OwnServer) -> None:
    # given a counter, and a network that swallows every reply
    client.set("counter", 0)
    proxy.drop_replies = 1.0

    # when it is raised
    with pytest.raises(redis.ConnectionError):
        client.incr("counter")

    # then it was, though nobody was told
    assert proxy.dropped == 1
    with server.client() as direct:
        assert direct.get("counter") == b"1"


def test_a_server_keeps_or_forgets_across_its_restarts(server: OwnServer) -> None:
    with server.client() as client:
        client.set("kept", 1)
    server.restart()
    with server.client() as client:
        assert client.get("kept") is None
