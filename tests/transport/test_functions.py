"""The commands that the programs need: a table, and what is said where a server lacks some."""

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner
from parties import claim, push

from chaos.servers import OpenServer, OwnServer, free_port
from impala_redis.common.errors import RedisDenied, UnsuitableServer
from impala_redis.common.local import children
from impala_redis.common.server.address import with_password
from impala_redis.common.transport import functions
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.functions import FILE, NEEDS, QUESTIONS, commands_inside
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.link import Link
from impala_redis.common.transport.monitor import MonitorLink, OperatorLink
from impala_redis.common.transport.plain_push import PlainActorLink
from impala_redis.workers.evaluator import main as eval_command
from impala_redis.workers.status import main as status_command
from support import Programs, eventually, usable_servers

ALL = tuple(NEEDS)


# The table.


def test_every_command_of_every_function_is_needed_by_a_program() -> None:
    # given the text of the functions
    source = FILE.read_text()
    written = set(re.findall(r"redis\.call\('(\w+)'", source))
    registered = set(re.findall(r"'impala\d+_(\w+)'", source)) | set(
        re.findall(r"learner_only\('impala\d+_(\w+)'", source)
    )

    # then every function belongs to a program, and every command to a function
    called = {function for needs in NEEDS.values() for function in needs.calls}
    assert called == registered
    assert set().union(*map(commands_inside, called)) == written
    sent = {sends.partition(" ")[0] for needs in NEEDS.values() for sends in needs.sends}
    assert set(QUESTIONS) == (written | sent | {"FUNCTION LOAD"}) - {"MULTI", "EXEC"}


def test_what_a_function_calls_counts_as_its_own() -> None:
    assert commands_inside("confirm") == {"HGET", "LLEN"}
    assert commands_inside("read_books") == {"HGET", "HSTRLEN", "LLEN"}
    assert commands_inside("push_end") >= {"RENAME", "HINCRBY", "LTRIM"}


def test_asking_changes_nothing_and_is_not_refused(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis, run_name: str
) -> None:
    # given a run at work
    push(actor, 3)
    claim(learner, 1)
    learner.publish(1, b"weights")
    keys = sorted(key for key in operator.keys("*") if run_name.encode() in key)
    before = {key: operator.dump(key) for key in keys}

    # when everything is asked
    learner.check_server()
    actor.require(*ALL)

    # then
    after = sorted(key for key in operator.keys("*") if run_name.encode() in key)
    assert {key: operator.dump(key) for key in after} == before
    assert push(actor, 1, start=4) == [b"a#1/4"]  # the connection is as it was


def test_asking_takes_two_round_trips_however_much_is_asked(
    actor: ActorLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    sent: list[int] = []
    round_trip = functions.round_trip

    def counted(client: redis.Redis, commands: list[tuple[str, ...]]) -> list[object]:
        sent.append(len(commands))
        return round_trip(client, commands)

    monkeypatch.setattr(functions, "round_trip", counted)

    # when / then: no commands is the connection alone
    actor.require("impala-actor")
    assert len([count for count in sent if count]) == 2
    sent.clear()
    actor.require("impala-status")
    assert len([count for count in sent if count]) == 1


# Rights.


@contextlib.contextmanager
def user(server: OpenServer, *rules: str) -> Iterator[str]:
    """The address of a user with these rights."""
    with redis.Redis.from_url(server.url) as operator:
        operator.execute_command("ACL", "SETUSER", "asker", "reset", "on", ">hush", *rules)
        yield with_password(f"redis://asker@127.0.0.1:{server.port}/0", "hush")
        operator.execute_command("ACL", "DELUSER", "asker")


EVERYTHING = ("~*", "&*", "+@all")


@pytest.mark.parametrize(
    ("programs", "rules", "missing", "remedy"),
    [
        (("impala-actor",), ("-rename", "-lpush"), "LPUSH, RENAME", "+lpush +rename"),
        (("impala-actor",), ("-exec", "-hexists"), "EXEC, HEXISTS", "+exec +hexists"),
        (("impala-actor",), ("-multi",), "MULTI", "+multi"),
        (("impala-actor",), ("-client",), "CLIENT SETNAME", "+client|setname"),
        (("impala-learner",), ("-sort", "-info", "-time"), "INFO, SORT, TIME", "+info +sort +time"),
        (("impala-learner", "impala-actor"), ("-rpushx", "-sort"), "RPUSHX, SORT", "+rpushx +sort"),
        (("impala-status",), ("-scan", "-fcall_ro"), "FCALL_RO, SCAN", "+fcall_ro +scan"),
        (("impala-eval",), ("-hmget",), "HMGET", "+hmget"),
        (("impala-actor --plain-push",), ("-hset", "-llen"), "HSET, LLEN", "+hset +llen"),
        (("impala-status --delete",), ("-unlink", "-scan"), "SCAN, UNLINK", "+scan +unlink"),
        (("impala-learner",), ("resetkeys", "~other:*"), "the run's keys", "'~impala:{mine}:*'"),
        (
            *(("impala-eval",), ("resetkeys", "~impala:{mine}:spec")),
            *("the run's keys", "'~impala:{mine}:*'"),
        ),
        (("impala-status",), ("resetkeys", "%W~*"), "the run's keys", "'~impala:{mine}:*'"),
    ],
)
def test_every_right_that_is_missing_stands_in_one_sentence(
    any_server: OpenServer,
    programs: tuple[str, ...],
    rules: tuple[str, ...],
    missing: str,
    remedy: str,
) -> None:
    # given
    with user(any_server, *EVERYTHING, *rules) as url:
        link = Link(url, "mine", "test")

        # when
        with contextlib.closing(link), pytest.raises(RedisDenied) as denied:
            link.require(*programs)

    # then
    message = str(denied.value)
    place = f"redis://***@127.0.0.1:{any_server.port}/0"
    assert f"the user 'asker' of {place} lacks a permission for {missing}; as an " in message
    assert " operator, run: " in message
    assert f" ACL SETUSER asker {remedy} (SECURITY.md" in message
    assert "admin" not in message
    assert "hush" not in message


def test_a_learner_without_scripting_is_told_all_that_it_lacks(any_server: OpenServer) -> None:
    with user(any_server, *EVERYTHING, "-@scripting") as url:
        link = LearnerLink(url, "mine", "holder", 30.0)
        with contextlib.closing(link), pytest.raises(RedisDenied) as denied:
            link.check_server()
    assert "lacks a permission for FCALL, FUNCTION LOAD; " in str(denied.value)


def test_a_learner_needs_no_transactions(any_server: OpenServer) -> None:
    with (
        user(any_server, *EVERYTHING, "-@transaction") as url,
        contextlib.closing(LearnerLink(url, "mine", "holder", 30.0)) as link,
    ):
        link.check_server()
        link.open()
        link.release()


# Servers without some commands.


@contextlib.contextmanager
def server_without(folder: Path, *names: str) -> Iterator[OwnServer]:
    """A server on which these commands are switched off."""
    options = [word for name in names for word in ("--rename-command", name, "")]
    with OwnServer(folder, *options) as running:
        yield running


OFF = ("SORT", "FUNCTION", "FCALL", "RENAME", "CLIENT", "RPUSH", "UNLINK", "WATCH")


def test_every_command_that_is_switched_off_stands_in_one_sentence(tmp_path: Path) -> None:
    # given a hardened server
    with server_without(tmp_path, *OFF) as server:
        learner = LearnerLink(server.url, "mine", "holder", 30.0)
        actor = ActorLink(server.url, "mine", "actor")
        monitor = MonitorLink(server.url, "mine", "status")
        both = Link(server.url, "mine", "train")
        plain = PlainActorLink(server.url, "mine", "actor")
        operator = OperatorLink(server.url, "mine", "status")
        sentences = []

        # when each program asks
        for ask in (
            learner.check_server,
            lambda: both.require("impala-learner", "impala-actor"),
            lambda: actor.require("impala-actor"),
            lambda: monitor.require("impala-status"),
            plain.require,
            operator.delete_run,
        ):
            with pytest.raises(UnsuitableServer) as refused:
                ask()
            sentences.append(str(refused.value))
        for link in (learner, both, actor, monitor, plain, operator):
            link.close()

    # then each names what it lacks, and the version that the server has
    lacks = [re.findall(r"/0, \w+ \d[\d.]+, does not know ([A-Z_, ]+): ", s) for s in sentences]
    assert lacks == [
        ["CLIENT SETNAME, FCALL, FUNCTION LOAD, RENAME, RPUSH, SORT, UNLINK"],
        ["CLIENT SETNAME, FCALL, FUNCTION LOAD, RENAME, RPUSH, SORT, UNLINK"],
        ["CLIENT SETNAME, FCALL, RENAME, UNLINK"],
        ["CLIENT SETNAME"],
        ["CLIENT SETNAME, RPUSH, UNLINK"],
        ["CLIENT SETNAME, UNLINK, WATCH"],
    ]
    assert "too old" not in "".join(sentences)


def test_without_transactions_a_server_is_asked_what_it_has(tmp_path: Path) -> None:
    # given
    with server_without(tmp_path, "MULTI", "RENAME", "INFO") as server:
        actor = ActorLink(server.url, "mine", "actor")

        # when / then
        with contextlib.closing(actor), pytest.raises(UnsuitableServer) as refused:
            actor.require("impala-actor")
    assert "of a version that it does not tell, does not know MULTI, RENAME: " in str(refused.value)


def test_what_is_switched_off_and_what_is_forbidden_stand_in_one_sentence(tmp_path: Path) -> None:
    # given
    with server_without(tmp_path, "SORT") as server:
        with server.client() as operator:
            operator.execute_command("ACL", "SETUSER", "default", "-rename")
        learner = LearnerLink(server.url, "mine", "holder", 30.0)

        # when / then: rights alone would not help
        with contextlib.closing(learner), pytest.raises(UnsuitableServer) as refused:
            learner.check_server()
    assert re.search(r"know SORT: .*; and the user 'default' .* for RENAME; ", str(refused.value))


@pytest.mark.parametrize("lacking", ["HLEN", "HINCRBY"])
def test_joins_are_not_counted_where_a_command_for_it_is_lacking(
    tmp_path: Path, lacking: str
) -> None:
    with (
        server_without(tmp_path, lacking) as server,
        contextlib.closing(PlainActorLink(server.url, "mine", "actor")) as actor,
    ):
        actor.require()
        assert actor.count_join("a") is None


def test_functions_that_an_admin_has_loaded_need_no_right_to_load_them(tmp_path: Path) -> None:
    # given a server that has them, and has FUNCTION no more
    with OwnServer(tmp_path) as server, server.client() as operator:
        operator.function_load(FILE.read_text())
        operator.execute_command("ACL", "SETUSER", "default", "-function")

        # then
        link = LearnerLink(server.url, "mine", "holder", 30.0)
        with contextlib.closing(link):
            link.check_server()
            assert link.open() == 0


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ({"redis_version": "6.2.14"}, "is Redis 6.2.14; Redis 7.0 or Valkey 7.2 is needed"),
        ({"redis_version": 6.0}, "is Redis 6.0; Redis 7.0 or Valkey 7.2 is needed"),
        ({"redis_version": "7.4.0"}, ", Redis 7.4.0, does not know RPUSHX: "),
        ({"valkey_version": "9.1.2"}, ", Valkey 9.1.2, does not know RPUSHX: "),
        ({}, ", of a version that it does not tell, does not know RPUSHX: "),
    ],
)
def test_age_is_the_reason_only_where_the_version_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: dict[str, object], found: str
) -> None:
    # given a server without a command, which tells one version or another
    with server_without(tmp_path, "RPUSHX") as server:
        actor = ActorLink(server.url, "mine", "actor")
        monkeypatch.setattr(actor.client, "info", lambda *_: info)

        # when / then
        with contextlib.closing(actor), pytest.raises(UnsuitableServer) as refused:
            actor.require("impala-actor")
    assert found in str(refused.value)


@pytest.mark.parametrize("program", ["actor", "status", "eval"])
@pytest.mark.parametrize("binary", usable_servers(), ids=lambda binary: binary.name)
def test_a_sentinel_is_named_to_every_program(tmp_path: Path, binary: Path, program: str) -> None:
    # given a Sentinel's port
    port = free_port()
    file = tmp_path / "sentinel.conf"
    file.write_text(f"port {port}\nbind 127.0.0.1\n")
    process = children.spawn(
        [binary, file, "--sentinel"],
        log_file=tmp_path / "sentinel.log",
        death_signal=signal.SIGKILL,
    )
    url = f"redis://127.0.0.1:{port}/0"
    try:
        with redis.Redis(port=port) as client:
            eventually(lambda: _answers(client))

        # when
        link = Link(url, "mine", "test")
        with contextlib.closing(link), pytest.raises(UnsuitableServer, match="is a Sentinel, "):
            link.require(f"impala-{program}")
        if program != "actor":
            command = {"status": status_command, "eval": eval_command}[program]
            done = CliRunner().invoke(command, ["--run", "mine", "--redis-url", url])

            # then
            assert done.exit_code == 6
            assert "is a Sentinel, which keeps no data" in done.output
    finally:
        children.end(process, grace_s=5.0)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.processes
def test_the_programs_say_it_at_their_start(tmp_path: Path, programs: Programs) -> None:
    # given a server on which only a push would fail
    folder = tmp_path / "server"
    folder.mkdir()
    with server_without(folder, "RPUSHX", "LPUSH") as server:
        for command in (
            ("impala-train", "--preset", "cartpole", "--redis-url", server.url),
            ("impala-actor", "--run", "mine", "--redis-url", server.url),
        ):
            code, output = programs.run(*command)

            # then it ends at once with the names, before a learner or an environment is made
            assert code == 6, output
            assert "does not know LPUSH, RPUSHX: switched off there" in output
            assert "Traceback" not in output
