"""Connections to Redis: each failure by its name, no secret in any message, and no retry unseen."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from chaos.servers import OpenServer, free_port
from impala_redis.common.errors import (
    Fenced,
    ImpalaError,
    RedisDenied,
    RedisUnreachable,
    UnsuitableServer,
)
from impala_redis.common.server import connection
from impala_redis.common.server.address import has_password, with_password, without_password
from impala_redis.common.server.backoff import keep_trying
from impala_redis.common.server.connection import connect, translated
from impala_redis.common.server.suitability import ServerLimits, check_room, check_server

# What a fake server answers to one command, None to hang up without an answer.
Answer = Callable[[list[bytes]], bytes | None]

INFO_OF_OLD_REDIS = "redis_version:6.2.0\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n"
INFO_OF_VALKEY = (
    "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:{}\r\nmaxmemory:123\r\n"
    "maxmemory_policy:noeviction\r\n"
)


class FakeServer:
    """Speaks as much of the protocol as a client needs, and remembers every command."""

    def __init__(self, answer: Answer) -> None:
        self.commands: list[list[bytes]] = []
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def of(self, name: bytes) -> list[list[bytes]]:
        """The commands of that name that have arrived."""
        return [command for command in self.commands if command[0].upper() == name]

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)
        for connected in self._connections:
            connected.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connected)
            self._serve(connected)

    def _serve(self, connected: socket.socket) -> None:
        """One connection at a time, until it or we hang up."""
        stream = connected.makefile("rb")
        try:
            while line := stream.readline():
                command = []
                for _ in range(int(line[1:])):
                    length = int(stream.readline()[1:])
                    command.append(stream.read(length + 2)[:-2])
                self.commands.append(command)
                reply = b"+OK\r\n" if command[0] in (b"CLIENT", b"AUTH") else self._answer(command)
                if reply is None:
                    return
                connected.sendall(reply)
        except (OSError, ValueError):
            return  # gone, or no command: a real server hangs up on a TLS greeting, too
        finally:
            stream.close()
            connected.close()


@pytest.fixture
def fake() -> Iterator[Callable[[Answer], FakeServer]]:
    """Starts fake servers, and ends them."""
    started: list[FakeServer] = []

    def start(answer: Answer) -> FakeServer:
        started.append(FakeServer(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OpenServer]:
    """A server whose settings the test may change."""
    with OpenServer(tmp_path) as running:
        yield running


@pytest.fixture
def acl_user(redis_server: OpenServer) -> Iterator[str]:
    """A URL with a user who may PING and nothing else."""
    operator = redis.Redis.from_url(redis_server.url)
    operator.execute_command("ACL", "SETUSER", "limited", "on", ">hush", "+ping", "+client")
    yield f"redis://limited:hush@127.0.0.1:{redis_server.port}/0"
    operator.execute_command("ACL", "DELUSER", "limited")
    operator.close()


def ping(url: str) -> None:
    client = connect(url, "test")
    try:
        with translated(client):
            client.ping()
    finally:
        client.close()


def check(url: str) -> ServerLimits:
    client = connect(url, "test")
    try:
        return check_server(client, url)
    finally:
        client.close()


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


def answering(info: str) -> Answer:
    """A server that tells what it is, and has no CONFIG."""
    return lambda command: bulk(info) if command[0] == b"INFO" else b"-ERR unknown command\r\n"


# Nobody there, or not let in.


def test_a_port_where_nothing_listens_is_named_with_the_remedy() -> None:
    port = free_port()
    with pytest.raises(RedisUnreachable) as refused:
        ping(f"redis://127.0.0.1:{port}/0")
    message = str(refused.value)
    assert f"redis://127.0.0.1:{port}/0" in message
    assert "(Connection refused)" in message
    assert "redis-server" in message
    assert "--redis-url" in message


def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RedisUnreachable, match=f"{tmp_path}/no.sock"):
        ping(f"unix://{tmp_path}/no.sock?db=0")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost:6379",
        "",
        "redis://localhost:port/0",
        "redis://localhost:99999/0",
        "redis://[::1/0",
        "redis://localhost/0?socket_timeout=soon",
        "redis://localhost/0?no_such_option=1",
    ],
)
def test_what_is_no_url_is_refused_with_the_right_forms(url: str) -> None:
    with pytest.raises(RedisUnreachable, match="redis://host:port/0"):
        ping(url)


def test_a_server_that_wants_a_password_is_told_from_one_that_is_away(
    own_server: OpenServer,
) -> None:
    # given a server with a password
    operator = redis.Redis.from_url(own_server.url)
    operator.config_set("requirepass", "hush")
    address = f"127.0.0.1:{own_server.port}/0"

    # when none, a wrong one, or a wrong user is given
    for url in (
        f"redis://{address}",
        f"redis://:wrong@{address}",
        f"redis://nobody:hush@{address}",
        own_server.url,
    ):
        # then it is final, and the remedy is said
        with pytest.raises(RedisDenied, match="redis://user:password@host") as refused:
            ping(url)
        assert "wrong@" not in str(refused.value)
        assert "hush" not in str(refused.value)

    # and the right one is let in, in every form
    ping(f"redis://:hush@{address}")
    ping(f"redis://default:hush@{address}")
    ping(f"redis://{address}?password=hush")
    ping(f"unix://{own_server.socket}?db=0&password=hush")
    operator.close()


def test_a_missing_permission_is_final_and_named(acl_user: str) -> None:
    # given a user who may only ping
    ping(acl_user)

    # when it asks for more
    with pytest.raises(RedisDenied, match=r"permission.*'info'") as refused:
        check(acl_user)

    # then the message tells what, and not the password
    assert "hush" not in str(refused.value)


def test_tls_with_a_server_that_does_not_speak_it_is_final() -> None:
    # given a server that answers in plain text
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connected, _ = listening.accept()
            with connected:
                connected.recv(10_000)
                connected.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=answer)
        thread.start()

        # when it is asked for TLS, then that is the cause which is told
        with pytest.raises(RedisDenied, match="TLS"):
            ping(f"rediss://127.0.0.1:{listening.getsockname()[1]}/0")
        thread.join(5)


# No secret in words.

SECRETS = [
    ("redis://alice:hush-word@127.0.0.1:{port}/0", "127.0.0.1"),
    ("redis://:hush-word@127.0.0.1:{port}/0", "127.0.0.1"),
    ("redis://127.0.0.1:{port}/0?password=hush-word", "127.0.0.1"),
    ("redis://127.0.0.1:{port}/0?db=1&password=hush-word&username=alice", "127.0.0.1"),
    ("unix:///no/such.sock?password=hush-word", "/no/such.sock"),
    ("unix:///no/such.sock?db=0&password=hush-word", "/no/such.sock"),
    ("unix://alice:hush-word@/no/such.sock", "/no/such.sock"),
    ("rediss://alice:hush-word@127.0.0.1:{port}/0", "127.0.0.1"),
    ("redis://:hush-word@[::1]:{port}/0", "[::1]"),
    # Special characters, as they should be written...
    ("redis://:hush%2Fword%40%23@127.0.0.1:{port}/0", "127.0.0.1"),
    # ... and as people write them.
    ("redis://:hush@word@127.0.0.1:{port}/0", "127.0.0.1"),
    ("redis://:hush:word@127.0.0.1:{port}/0", "127.0.0.1"),
    ("redis://:hush/word@127.0.0.1:{port}/0", ""),
    ("redis://:hush#word@127.0.0.1:{port}/0", ""),
    ("redis://:hush?word@127.0.0.1:{port}/0", ""),
    ("redis://:hush[word@127.0.0.1:{port}/0", ""),
    ("redis://alice:hush-word@127.0.0.1:port/0", ""),
    ("alice:hush-word@127.0.0.1:{port}/0", ""),
    ("redis:alice:hush-word@127.0.0.1:{port}/0", ""),
    ("127.0.0.1:{port}/0?password=hush-word", ""),
    ("redis://127.0.0.1:{port}/0#password=hush-word", ""),
    ("redis://127.0.0.1:{port}/0?PASSWORD=hush-word", ""),
]


@pytest.mark.parametrize(("url", "kept"), SECRETS, ids=[url for url, _ in SECRETS])
def test_no_message_holds_a_password(url: str, kept: str) -> None:
    url = url.format(port=free_port())

    # then the address for messages is without it, and still says where
    shown = without_password(url)
    assert "hush" not in shown
    assert "word@" not in shown
    assert kept in shown

    # and so is what a failure says
    with pytest.raises(ImpalaError) as failed:
        ping(url)
    assert "hush" not in str(failed.value)
    assert "word@" not in str(failed.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://alice@localhost:6379/0", "redis://***@localhost:6379/0"),
        ("rediss://[::1]:6380/2?ssl_ca_certs=/etc/ca.pem", "rediss://[::1]:6380/2"),
        ("unix:///run/redis.sock?db=0", "unix:///run/redis.sock"),
    ],
)
def test_a_url_is_shown_by_its_place_alone(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(("url", "kept"), SECRETS, ids=[url for url, _ in SECRETS])
def test_a_password_is_seen_in_an_address(url: str, kept: str) -> None:
    assert has_password(url.format(port=1))


@pytest.mark.parametrize(
    "url",
    ["redis://h:1/0", "redis://u@h:1/0", "redis://u:@h:1/0", "redis://[::1]:1/0", "unix:///a:b"],
)
def test_none_is_seen_where_there_is_none(url: str) -> None:
    assert not has_password(url)


@pytest.mark.parametrize("password", ["hush", "a/b", "a@b:c", "100%25", "ümlaut ?#&=+[]"])
def test_a_password_from_elsewhere_gets_into_every_kind_of_address(
    own_server: OpenServer, password: str
) -> None:
    # given a server with that password
    operator = redis.Redis.from_url(own_server.url)
    operator.config_set("requirepass", password)
    port = own_server.port

    # then whatever it holds arrives as it is
    for url in (
        f"redis://127.0.0.1:{port}/0",
        f"redis://127.0.0.1:{port}",
        f"redis://default@127.0.0.1:{port}/0",
        f"redis://default:@127.0.0.1:{port}?db=0",
        f"redis://127.0.0.1:{port}/0?username=default",
        own_server.url,
    ):
        ping(with_password(url, password))
        assert password not in without_password(with_password(url, password))
    operator.close()


def test_what_is_no_address_is_left_for_connect_to_refuse() -> None:
    assert with_password("localhost:6379", "hush") == "localhost:6379"


# Servers that will not do.


def test_a_server_of_ours_is_suitable_and_tells_its_memory_limit(
    any_server: OpenServer,
) -> None:
    limits = ServerLimits(maxmemory_bytes=1_000_000_000, bulk_bytes=512 * 1024**2)
    assert check(any_server.url) == limits
    assert check(any_server.tcp_url) == limits


def test_a_server_that_evicts_is_refused_with_the_remedy(own_server: OpenServer) -> None:
    operator = redis.Redis.from_url(own_server.url)
    operator.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(
        UnsuitableServer, match=r"allkeys-lru.*CONFIG SET maxmemory-policy noeviction"
    ):
        check(own_server.url)
    operator.close()


def told(url: str, caplog: pytest.LogCaptureFixture, *, allow_eviction: bool = False) -> str:
    """What judging the server logs."""
    caplog.clear()
    client = connect(url, "test")
    try:
        check_server(client, url, allow_eviction)
    finally:
        client.close()
    return caplog.text


def test_a_server_that_evicts_is_used_with_a_warning_where_the_user_allows_it(
    own_server: OpenServer, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(own_server.url) as operator:
        operator.config_set("maxmemory-policy", "allkeys-random")
    line = told(own_server.url, caplog, allow_eviction=True)
    assert "may evict the run's keys (maxmemory-policy allkeys-random), as --allow-evic" in line


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-ttl"])
def test_a_server_that_evicts_only_what_expires_is_used_with_a_warning(
    own_server: OpenServer, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    with redis.Redis.from_url(own_server.url) as operator:
        operator.config_set("maxmemory-policy", policy)
    line = told(own_server.url, caplog)
    assert f"may evict keys that expire (maxmemory-policy {policy}): a run's are its lease" in line
    assert "CONFIG SET maxmemory-policy noeviction" in line


@pytest.mark.parametrize("line", ["maxmemory_policy:\r\n", "", "maxmemory_policy: \r\n"])
def test_a_policy_that_is_not_told_is_a_warning(
    fake: Callable[[Answer], FakeServer], caplog: pytest.LogCaptureFixture, line: str
) -> None:
    # given what Redis Cloud and Heroku answer
    server = fake(answering(f"redis_version:7.4.0\r\nmaxmemory:123\r\n{line}"))

    # then
    assert "does not tell its maxmemory-policy, and a run needs noevi" in told(server.url, caplog)


@pytest.mark.parametrize(
    "policy", ["allkeys-lru", "allkeys-of-next-year", "optimistic-volatile", "ALLKEYS-LFU", "0"]
)
def test_every_policy_that_may_take_lasting_keys_is_refused(
    fake: Callable[[Answer], FakeServer], policy: str
) -> None:
    # given a managed server: CONFIG is forbidden
    server = fake(answering(f"redis_version:7.4.0\r\nmaxmemory_policy:{policy}\r\n"))

    # then the remedy is not a command that it refuses
    with pytest.raises(UnsuitableServer) as refused:
        check(server.url)
    message = str(refused.value)
    assert f"may evict the run's keys (maxmemory-policy {policy.lower()})" in message
    assert "the parameter group of ElastiCache" in message
    assert message.endswith("add --allow-eviction")
    assert "CONFIG SET" not in message


def test_a_kept_policy_of_next_year_that_spares_lasting_keys_is_a_warning(
    fake: Callable[[Answer], FakeServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = fake(answering("redis_version:9.0.0\r\nmaxmemory_policy:volatile-lrm\r\n"))
    assert "may evict keys that expire (maxmemory-policy volatile-lrm)" in told(server.url, caplog)


@pytest.mark.parametrize(
    "line",
    ["", "redis_version:\r\n", "redis_version:unstable\r\n", "valkey_version:next\r\n"],
    ids=["none", "empty", "a word", "a word of valkey"],
)
def test_a_version_that_is_not_told_is_a_warning(
    fake: Callable[[Answer], FakeServer], caplog: pytest.LogCaptureFixture, line: str
) -> None:
    server = fake(answering(f"{line}maxmemory:123\r\nmaxmemory_policy:noeviction\r\n"))
    assert "does not tell its version" in told(server.url, caplog)


@pytest.mark.parametrize(
    ("told_bytes", "limit"),
    [
        ("maxmemory:50000000", 50_000_000),
        ("maxmemory:0", 0),
        ("maxmemory:1gb", None),
        ("maxmemory:-1", None),
        ("maxmemory:a=b,c", None),
        ("no colon", None),
        ("", None),
    ],
)
def test_a_memory_limit_that_is_not_told_as_a_number_is_not_known(
    fake: Callable[[Answer], FakeServer],
    caplog: pytest.LogCaptureFixture,
    told_bytes: str,
    limit: int | None,
) -> None:
    # given
    info = f"redis_version:7\r\n{told_bytes}\r\nmaxmemory_policy:noeviction\r\n"
    limits = check(fake(answering(info)).url)

    # when a run is to be put there
    check_room(limits, "redis://there", block_bytes=1000, weights_bytes=1000, blocks=10)

    # then
    assert limits.maxmemory_bytes == limit
    assert ("does not tell how much memory it has" in caplog.text) == (limit is None)
    assert ("has no memory limit; set maxmemory 256000000" in caplog.text) == (limit == 0)


def test_a_sentinel_is_named_as_such(fake: Callable[[Answer], FakeServer]) -> None:
    server = fake(answering("redis_version:7.2.0\r\nredis_mode:sentinel\r\n"))
    with pytest.raises(
        UnsuitableServer, match=r"is a Sentinel, .* redis\+sentinel://HOST:PORT/NAME"
    ):
        check(server.url)


@pytest.mark.parametrize(
    ("info", "found"),
    [
        (INFO_OF_OLD_REDIS, "Redis 6.2.0"),
        (INFO_OF_VALKEY.format("7.1.9"), "Valkey 7.1.9"),
    ],
)
def test_a_server_that_is_too_old_is_refused_with_the_remedy(
    fake: Callable[[Answer], FakeServer], info: str, found: str
) -> None:
    server = fake(answering(info))
    with pytest.raises(UnsuitableServer, match=f"{found}.*Redis 7.0 or Valkey 7.2.*upgrade"):
        check(server.url)


@pytest.mark.parametrize(
    "info",
    [
        INFO_OF_VALKEY.format("9.1.2"),
        INFO_OF_VALKEY.format("7.2.0"),
        "redis_version:10.0.0\r\nmaxmemory:123\r\nmaxmemory_policy:noeviction\r\n",
        "redis_version:7.0.0-rc1\r\nmaxmemory:123\r\nmaxmemory_policy:noeviction\r\n",
    ],
    ids=["valkey 9", "valkey 7.2", "redis 10", "a candidate"],
)
def test_a_newer_server_is_accepted_whatever_redis_it_claims_to_be(
    fake: Callable[[Answer], FakeServer], info: str
) -> None:
    assert check(fake(answering(info)).url).maxmemory_bytes == 123


@pytest.mark.parametrize(
    "reply",
    [
        "ERR unknown command 'PING', with args beginning with:",
        "ERR Unknown Redis command called from script script: f, on @user_function:126.",
        "ERR unknown subcommand 'LOAD'. Try FUNCTION HELP.",
        "ERR Command is not available: 'FUNCTION'. See https://example.org",
        "ERR command is not allowed",
    ],
)
def test_a_command_that_is_not_there_is_no_matter_of_age(
    fake: Callable[[Answer], FakeServer], reply: str
) -> None:
    server = fake(lambda command: f"-{reply}\r\n".encode())
    with pytest.raises(UnsuitableServer, match=r"does not know a command .*switched off") as failed:
        ping(server.url)
    assert "too old" not in str(failed.value)


# Answers that mean "later", and the rest.


@pytest.mark.parametrize(
    "reply",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "BUSY Redis is busy running a script.",
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "UNBLOCKED force unblock from blocking operation, instance state changed",
        "ERR max number of clients reached",
        "EXECABORT Transaction discarded because of: OOM command not allowed",
        "EXECABORT Transaction discarded because of: READONLY You can't write against a replica.",
    ],
    ids=lambda reply: reply.partition(" ")[0],
)
def test_what_may_pass_is_worth_another_try(
    fake: Callable[[Answer], FakeServer], reply: str
) -> None:
    server = fake(lambda command: f"-{reply}\r\n".encode())
    with pytest.raises(RedisUnreachable):
        ping(server.url)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("NOAUTH Authentication required.", RedisDenied),
        ("WRONGPASS invalid username-password pair or user is disabled.", RedisDenied),
        ("NOPERM this user has no permissions to run the 'ping' command", RedisDenied),
        ("FENCED epoch 1 is over, now 2 by second", Fenced),
        ("ERR something else", ImpalaError),
    ],
)
def test_what_will_not_pass_is_final(
    fake: Callable[[Answer], FakeServer], reply: str, kind: type[ImpalaError]
) -> None:
    server = fake(lambda command: f"-{reply}\r\n".encode())
    with pytest.raises(ImpalaError) as failed:
        ping(server.url)
    assert type(failed.value) is kind


@pytest.mark.parametrize(
    "reply", ["HELD 500 \x1b[2Jhost:1", "FENCED 1:a is over, now 2:\x1b[2Jb", "ERR no \x1b[2Jkey"]
)
def test_an_error_that_quotes_a_stranger_does_nothing_to_a_terminal(
    fake: Callable[[Answer], FakeServer], reply: str
) -> None:
    server = fake(lambda command: f"-{reply}\r\n".encode())
    with pytest.raises(ImpalaError, match=r"\?\[2J") as failed:
        ping(server.url)
    assert str(failed.value).isprintable()


# Time, and commands sent once.


def test_a_server_that_never_answers_is_given_up_in_time(
    fake: Callable[[Answer], FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a server that reads and says nothing
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", 0.2)
    server = fake(lambda command: b"")

    # when it is asked
    started = time.monotonic()
    with pytest.raises(RedisUnreachable):
        ping(server.url)

    # then the wait was the time-out's, once
    assert 0.15 < time.monotonic() - started < 1.5
    assert len(server.of(b"PING")) == 1


def test_a_server_that_does_not_even_accept_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a full backlog: connections are made by the system and nobody reads
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", 0.2)
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        started = time.monotonic()
        with pytest.raises(RedisUnreachable):
            ping(f"redis://127.0.0.1:{listening.getsockname()[1]}/0")
        assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("pipelined", [False, True], ids=["command", "pipeline"])
def test_a_command_whose_reply_is_dropped_is_not_sent_again(
    fake: Callable[[Answer], FakeServer], pipelined: bool
) -> None:
    # given a server that takes a push and hangs up
    server = fake(lambda command: None if command[0] == b"RPUSH" else b"+PONG\r\n")
    client = connect(server.url, "test")
    client.ping()

    # when something is pushed
    with pytest.raises(RedisUnreachable, match="no answer"), translated(client):
        if pipelined:
            pipe = client.pipeline(transaction=False)
            pipe.rpush("list", b"x")
            pipe.execute()
        else:
            client.rpush("list", b"x")

    # then it saw the push once
    assert server.of(b"RPUSH") == [[b"RPUSH", b"list", b"x"]]

    # and the next command uses a new connection
    client.ping()
    assert len(server.of(b"PING")) == 2
    client.close()


def test_connecting_sends_nothing_before_the_first_command(
    fake: Callable[[Answer], FakeServer],
) -> None:
    server = fake(lambda command: b"+PONG\r\n")
    client = connect(server.url, "impala actor\n7")
    assert server.commands == []

    # and then the name, in characters that Redis takes
    client.ping()
    assert [b"CLIENT", b"SETNAME", b"impala-actor-7"] in server.commands
    client.close()


# Trying again.


def refuse() -> None:
    raise RedisUnreachable("away")


def test_trying_ends_with_the_first_answer_and_each_failure_is_told() -> None:
    # given three failures before an answer
    failures: list[RedisUnreachable] = []
    answers = iter([refuse, refuse, refuse, lambda: "yes"])

    # when it is tried
    reply = keep_trying(
        lambda: next(answers)(),
        give_up_after_s=30.0,
        stopped=lambda: False,
        waiting=failures.append,
    )

    # then the answer comes, and each failure was reported
    assert reply == "yes"
    assert [str(error) for error in failures] == ["away"] * 3


def test_trying_gives_up_in_time() -> None:
    failures: list[RedisUnreachable] = []
    started = time.monotonic()
    with pytest.raises(RedisUnreachable, match="away"):
        keep_trying(refuse, give_up_after_s=0.3, stopped=lambda: False, waiting=failures.append)
    assert time.monotonic() - started < 1.0
    assert 1 <= len(failures) <= 10


def test_trying_for_no_time_tries_once() -> None:
    failures: list[RedisUnreachable] = []
    with pytest.raises(RedisUnreachable):
        keep_trying(refuse, give_up_after_s=0.0, stopped=lambda: False, waiting=failures.append)
    assert failures == []


def test_trying_stops_when_told() -> None:
    failures: list[RedisUnreachable] = []
    with pytest.raises(RedisUnreachable, match="away"):
        keep_trying(
            refuse,
            give_up_after_s=60.0,
            stopped=lambda: len(failures) == 2,
            waiting=failures.append,
        )
    assert len(failures) == 2


def test_what_is_final_is_not_tried_again() -> None:
    calls: list[int] = []

    def denied() -> None:
        calls.append(1)
        raise RedisDenied("no")

    with pytest.raises(RedisDenied):
        keep_trying(denied, give_up_after_s=9.0, stopped=lambda: False, waiting=lambda error: None)
    assert len(calls) == 1
