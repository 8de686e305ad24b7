"""A password on its way to another machine without TLS: each program warns of it, once."""

import logging
import socket
from collections.abc import Iterator

import pytest

from chaos.servers import OwnServer
from impala_redis.common.server import connection
from impala_redis.common.server.address import Place, parse
from impala_redis.common.server.connection import connect, translated
from support import Programs


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A server on every address that wants a password."""
    options = ("--bind", "*", "--protected-mode", "no", "--requirepass", "hush")
    with OwnServer(tmp_path_factory.mktemp("guarded"), *options) as own:
        yield own


@pytest.fixture(autouse=True)
def _nobody_was_warned() -> None:
    connection._warn_of_clear_text.cache_clear()


def warnings(url: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is warned of when a program of several connections asks twice by each."""
    caplog.clear()
    for _ in range(2):
        client = connect(url, "test")
        for _ in range(2):
            with translated(client):
                client.ping()
        client.close()
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_password_in_clear_to_another_machine_is_warned_of_once(
    guarded: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    # when
    (said,) = warnings(f"redis://:hush@{own_address()}:{guarded.port}/0", caplog)

    # then
    assert said.startswith("NOT ENCRYPTED: on the way to")
    assert "rediss://" in said
    assert "hush" not in said


def test_a_password_in_an_option_is_one(
    guarded: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://{own_address()}:{guarded.port}/0?%70assword=hush"
    assert len(warnings(url, caplog)) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_a_password_that_stays_on_this_machine_is_not(
    guarded: OwnServer, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    assert warnings(f"redis://:hush@{host}:{guarded.port}/0", caplog) == []


@pytest.mark.parametrize(
    "url",
    [
        "rediss://:hush@192.0.2.1/0",
        "unix://:hush@/run/redis.sock",
        "redis://192.0.2.1/0",
        "redis://:hush@[::1]/0",
    ],
)
def test_tls_a_socket_and_no_password_are_not_warned_of(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection._warn_of_clear_text(url, 1)
    assert caplog.records == []


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.1", "redis", "172.17.0.2", "[fd00::1]"])
def test_private_addresses_and_names_are_on_somebodys_network(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection._warn_of_clear_text(f"redis://:hush@{host}/0", 1)
    assert len(caplog.records) == 1


def test_what_is_loopback_is_on_this_machine() -> None:
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"):
        assert Place(host, 1).is_loopback
    for host in ("localhost.example.org", "0.0.0.0", "::", "", "x"):
        assert not Place(host, 1).is_loopback
    assert parse("redis:///0").places[0].is_loopback


@pytest.mark.processes
def test_every_program_says_it_once(programs: Programs, guarded: OwnServer) -> None:
    # given
    there = {
        "IMPALA_REDIS_URL": f"redis://:hush@{own_address()}:{guarded.port}/0",
        "IMPALA_RUN": "clear",
    }
    small = ("--preset", "cartpole", "--total-frames", "2000", "--stop-at-return", "none")

    # when
    code, of_train = programs.run("impala-train", *small, "--run-dir", "run", **there)
    _, of_status = programs.run("impala-status", **there)
    _, of_evaluation = programs.run("impala-eval", "--episodes", "1", **there)

    # then
    assert code == 0, of_train
    logs = [
        (programs.folder / "run" / "logs" / f"{n}.log").read_text() for n in ("learner", "actor-0")
    ]
    for output in (of_train, of_status, of_evaluation, *logs):
        assert output.count("NOT ENCRYPTED") == 1, output
        assert "hush" not in output
