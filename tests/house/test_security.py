"""SECURITY.md tells the truth: who may do what, refusals that are final, and secrets kept."""

import contextlib
import logging
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner
from full import in_full
from redis.backoff import NoBackoff
from redis.retry import Retry

from chaos.hardened import USERS, HardenedServer
from chaos.servers import OpenServer, OwnServer, free_port
from impala_redis.common.errors import RedisDenied
from impala_redis.common.server.address import with_password
from impala_redis.common.server.connection import connect
from impala_redis.common.server.suitability import check_server
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, residual
from impala_redis.workers.status import main as status_command
from impala_redis.workers.train import main as train_command
from support import ROOT, Program, Programs, eventually, usable_servers

SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
RUN = "mine"
# A function of ours that does something else.
OTHER_PUSH = "redis.register_function('impala5_push_begin', function() return 1 end)"
K = f"impala:{{{RUN}}}:"
OTHER = "impala:{other}:"
P = "impala-population:{POPULATION}:"  # as the file comes
SHORT = ("--preset", "cartpole", "--total-frames", "10000", "--stop-at-return", "none")
ENDLESS = ("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none")
PUSH_KEYS = f"4 {K}trajectories {K}pushing {K}stats {K}seq"
CLAIM_KEYS = f"7 {K}trajectories {K}inflight {K}claimed {K}epoch {K}stats {K}pushing {K}seq"
JOIN_KEYS = f"4 {K}epoch {K}inflight {K}claimed:2 {K}stats"
OPEN_KEYS = "12 " + " ".join(
    K + name
    for name in (
        *("lock", "epoch", "inflight", "claimed", "stats", "trajectories", "pushing", "dead"),
        *("seq", "weights", "spec", "joins"),
    )
)

# What the programs send, and what an operator is told to send, by user.
ALLOWED: dict[str, list[str]] = {
    "strict-actor": [
        "PING",
        "CLIENT SETNAME impala-actor",
        f"RPUSH {K}trajectories block",
        f"LLEN {K}trajectories",
        f"HMGET {K}spec json digest state",
        f"HMGET {K}spec digest state renewed_at",
        f"HMGET {K}weights version payload digest",
        f"HGET {K}weights version",
        f"HSET {K}actor:a host here",
        f"PEXPIRE {K}actor:a 10000",
        f"EXISTS {K}actor:a",
        f"UNLINK {K}actor:a",
        f"HINCRBY {K}joins a 1",
        f"HLEN {K}joins",
        f"UNLINK {K}joins",
    ],
    "actor": [
        "PING",
        "CLIENT SETNAME impala-actor",
        "MULTI",
        f"FCALL impala5_push_begin {PUSH_KEYS} a#1 1 4 block 1",
        f"RPUSHX {K}pushing block",
        f"FCALL impala5_push_end {PUSH_KEYS} a#1 1 4 block 1",
        "EXEC",
        f"HMGET {K}spec json digest state",
        f"HMGET {K}spec digest state renewed_at",
        f"HMGET {K}weights version payload digest",
        f"HGET {K}weights version",
        f"HSET {K}actor:a host here",
        f"PEXPIRE {K}actor:a 10000",
        f"EXISTS {K}actor:a",
        f"UNLINK {K}actor:a",
        f"HINCRBY {K}joins a 1",
        f"HLEN {K}joins",
        f"UNLINK {K}joins",
    ],
    "learner": [
        "PING",
        "CLIENT SETNAME impala-learner",
        "INFO",
        "CONFIG GET proto-max-bulk-len",
        "FUNCTION LIST LIBRARYNAME impala5 WITHCODE",
        f"GET {K}lock",
        f"HGET {K}weights version",
        f"UNLINK {K}joins",
        f"LLEN {K}trajectories",
        f"FCALL impala5_open {OPEN_KEYS} me 10000 1 0 new 3",
        f"FCALL impala5_join {JOIN_KEYS} me 2 3 x",
        f"FCALL impala5_claim {CLAIM_KEYS} 1:me 0 0 1 0",
        f"LRANGE {K}claimed 0 0",
        f"LRANGE {K}claimed:2 0 0",
        f"FCALL impala5_confirm 2 {K}trajectories {K}epoch 1:me",
        f"FCALL impala5_commit 4 {K}inflight {K}stats {K}epoch {K}dead 1:me 0 0 0 0 1 r 0 x",
        f"FCALL impala5_publish 2 {K}weights {K}epoch 1:me 1 payload digest 1",
        f"FCALL impala5_announce 2 {K}spec {K}epoch 1:me json digest fingerprint running",
        f"FCALL impala5_renew 3 {K}lock {K}spec {K}epoch 1:me me 10000 frames 5",
        f"FCALL impala5_read_books 3 {K}stats {K}trajectories {K}inflight 0",
        f"FCALL impala5_release 2 {K}lock {K}epoch 1:me",
        f"HSET {P}members mine record",
        f"HSET {P}state:mine record x payload y",
        f"PEXPIRE {P}state:mine 60000",
        f"HGETALL {P}members",
        f"HDEL {P}members mine",
        f"HSTRLEN {P}state:other payload",
        f"HMGET {P}state:other record payload",
        f"UNLINK {P}state:mine",
        f"LPUSH {P}lineage line",
        f"LTRIM {P}lineage 0 999",
    ],
    "monitor": [
        "PING",
        "CLIENT SETNAME impala-status",
        f"FCALL_RO impala5_read_books 3 {K}stats {K}trajectories {K}inflight 40 produced",
        f"FCALL_RO impala5_read_learner 2 {K}lock {K}epoch 200 512",
        f"FCALL_RO impala5_read_fields 3 {K}actor:a {K}weights {K}spec 200 host version state",
        f"FCALL_RO impala5_read_names 1 {K}stats 200 0 {K}actor:* 1000",
        f"GET {K}lock",
        f"PTTL {K}lock",
        "TIME",
        f"HGETALL {K}epoch",
        f"HGETALL {K}stats",
        f"HGETALL {K}actor:a",
        f"HMGET {K}weights version payload digest",
        f"HMGET {K}spec json digest state",
        f"LLEN {K}trajectories",
        f"LRANGE {K}dead 0 -1",
        f"HGETALL {P}members",
        f"LRANGE {P}lineage 0 999",
        "SCAN 0",
        "INFO",
    ],
    "admin": [
        "FUNCTION LIST",
        "CONFIG GET maxmemory",
        "ACL LOG",
        "ACL LIST",
        f"LRANGE {K}trajectories 0 -1",
        f"HGETALL {OTHER}stats",
    ],
}

# For everyone but the admin.
NOBODY = [
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "EVAL return(1) 0",
    "EVALSHA 0000 0",
    "SCRIPT LOAD return(1)",
    "FUNCTION LOAD code",
    "FUNCTION DELETE impala5",
    "FUNCTION FLUSH",
    "CONFIG SET maxmemory 1",
    "CONFIG SET requirepass x",
    "CONFIG REWRITE",
    "ACL LIST",
    "ACL SETUSER me on",
    "ACL DELUSER learner",
    "CLIENT KILL TYPE normal",
    "CLIENT LIST",
    "CLIENT PAUSE 1000",
    "DEBUG SLEEP 0",
    "MODULE LIST",
    "SHUTDOWN",
    "SAVE",
    "BGSAVE",
    "REPLICAOF localhost 1",
    "MONITOR",
    "SUBSCRIBE channel",
    "PUBLISH channel x",
    "SLOWLOG GET",
    f"RESTORE {K}weights 0 x",
    f"DUMP {K}weights",
    f"RENAME {K}weights {K}trajectories",
    f"COPY {K}weights {K}trajectories",
    f"MIGRATE localhost 1 {K}weights 0 10",
    f"EXPIRE {K}weights 1",
    f"HGETALL {OTHER}weights",
    f"HGET {OTHER}weights version",
    f"RPUSH {OTHER}trajectories x",
    f"FCALL impala5_push_begin 4 {OTHER}trajectories {OTHER}pushing {OTHER}stats {OTHER}seq a#1 1",
    f"FCALL impala5_release 2 {OTHER}lock {OTHER}epoch 1:me",
]

# What no actor may, of either kind.
NO_ACTOR = [
    "INFO",
    "CONFIG GET *",
    "FUNCTION LIST",
    "SCAN 0",
    f"SET {K}weights x",
    f"DEL {K}weights",
    f"UNLINK {K}weights",
    f"HSET {K}weights version 9",
    f"HSET {K}spec json x",
    f"RPUSH {K}weights x",
    f"LPOP {K}trajectories",
    f"LRANGE {K}trajectories 0 -1",
    f"DEL {K}trajectories",
    f"LMOVE {K}trajectories {K}inflight LEFT RIGHT",
    f"SORT {K}trajectories BY nosort STORE {K}seq",
    f"RPUSH {K}inflight x",
    f"LRANGE {K}claimed 0 -1",
    f"RENAME {K}claimed {K}trajectories",
    f"LLEN {K}inflight",
    f"GET {K}lock",
    f"SET {K}lock me",
    f"DEL {K}lock",
    f"HGETALL {K}epoch",
    f"HSET {K}epoch token 9:me",
    f"LRANGE {K}dead 0 -1",
    f"HGETALL {K}actor:other",
    f"HGET {K}actor:other host",
    f"HGETALL {K}joins",
    f"FCALL impala5_claim {CLAIM_KEYS} 1:me 0 0 1 0",
    f"FCALL impala5_open {OPEN_KEYS} me 10000 1 0 g 1",
    f"FCALL impala5_join {JOIN_KEYS} me 2 3 x",
    f"FCALL impala5_publish 2 {K}weights {K}epoch 1:me 2 x y 2",
    f"FCALL impala5_push_begin 4 {K}weights {K}pushing {K}stats {K}seq a#1 1",
    f"FCALL_RO impala5_read_books 3 {K}stats {K}trajectories {K}inflight 40 produced",
    f"FCALL_RO impala5_read_fields 1 {K}actor:other 200 host",
    f"FCALL_RO impala5_read_names 1 {K}weights 200 0 * 1000",
    f"HGETALL {P}members",
    f"HMGET {P}state:mine record payload",
    f"HSET {P}state:mine payload x",
]

DENIED: dict[str, list[str]] = {
    "strict-actor": [
        *NOBODY,
        *NO_ACTOR,
        f"FCALL impala5_push_begin {PUSH_KEYS} a#1 1 4 block 1",
        "MULTI",
        f"RPUSHX {K}pushing block",
        f"RENAME {K}trajectories {K}pushing",
        f"LTRIM {K}trajectories 1 0",
        f"HSET {K}stats consumed 9",
        f"HGETALL {K}stats",
        f"HSET {K}seq a#1 9",
    ],
    "actor": [
        *NOBODY,
        *NO_ACTOR,
        # A learner's function under the actor's own keys: refused inside.
        f"FCALL impala5_open 5 {K}seq {K}stats {K}trajectories {K}pushing {K}stats me 9 1 0 g 1",
    ],
    "learner": [
        *(*NOBODY, "SCAN 0", "CLIENT NO-EVICT on", f"LPOP {K}trajectories"),
        "HGETALL impala-population:{other}:members",
        f"RENAME {P}members {P}lineage",
    ],
    "monitor": [
        *NOBODY,
        "CONFIG GET *",
        f"FCALL impala5_push_begin {PUSH_KEYS} a#1 1 4 block 1",
        f"FCALL_RO impala5_read_books 3 {OTHER}stats {OTHER}trajectories {OTHER}inflight 40 x",
        f"FCALL_RO impala5_read_fields 1 {OTHER}weights 200 version",
        f"FCALL_RO impala5_read_fields 1 {K}joins 200 a",
        f"RPUSH {K}trajectories x",
        f"LPOP {K}trajectories",
        f"LRANGE {K}trajectories 0 -1",
        f"HSET {K}stats consumed 9",
        f"HSET {K}weights version 9",
        f"SET {K}lock me",
        f"DEL {K}lock",
        f"LTRIM {K}dead 1 0",
        f"UNLINK {K}actor:a",
        f"HINCRBY {K}joins a 1",
        f"HLEN {K}joins",
        f"UNLINK {K}joins",
        f"HSET {P}members mine record",
        f"HMGET {P}state:mine record payload",
    ],
}


def cases(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(user, command) for user, commands in table.items() for command in commands]


@pytest.fixture(scope="module", params=usable_servers(), ids=lambda binary: binary.name)
def hardened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HardenedServer]:
    """A server with the files of docker/, with the functions, and a run that has been opened."""
    folder = tmp_path_factory.mktemp("hardened")
    with HardenedServer(folder, request.param, RUN) as running:
        running.load_functions()
        with running.client("learner") as learner:
            keys = OPEN_KEYS.split()[1:]
            learner.fcall("impala5_open", len(keys), *keys, "me", 10_000, 0, 0, "generation", 1)
        yield running


@pytest.fixture(scope="module")
def users(hardened: HardenedServer) -> Iterator[dict[str, redis.Redis]]:
    """A connection of each user."""
    clients = {user: hardened.client(user) for user in USERS}
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture
def guarded(tmp_path: Path, run_name: str) -> Iterator[HardenedServer]:
    """A server with the files of docker/ for this test alone, with the functions."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    with HardenedServer(folder, usable_servers()[0], run_name) as running:
        running.load_functions()
        yield running


@pytest.fixture(params=usable_servers(), ids=lambda binary: binary.name)
def any_guarded(
    request: pytest.FixtureRequest, tmp_path: Path, run_name: str
) -> Iterator[HardenedServer]:
    """The same, once of each kind of server."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    with HardenedServer(folder, request.param, run_name) as running:
        running.load_functions()
        yield running


# Who may do what.


@pytest.mark.parametrize(("user", "command"), cases(ALLOWED))
def test_a_user_may_do_its_job(users: dict[str, redis.Redis], user: str, command: str) -> None:
    try:
        users[user].execute_command(*command.split())
    except redis.exceptions.NoPermissionError as error:
        pytest.fail(str(error))
    except redis.ResponseError as error:
        # Allowed, and of no use: another command of the table has taken the run over meanwhile.
        assert re.match("FENCED|CURSOR|HELD|EXEC without MULTI", str(error)), error


@pytest.mark.fault(40)
@pytest.mark.parametrize(("user", "command"), cases(DENIED))
def test_a_user_may_do_nothing_else(users: dict[str, redis.Redis], user: str, command: str) -> None:
    try:
        reply = users[user].execute_command(*command.split())
    except redis.exceptions.NoPermissionError:
        return
    except redis.ResponseError as error:
        # Inside a function; DEBUG is off for everyone.
        assert re.search(
            "ACL failure in script|executing the script can't run|DEBUG command not allowed",
            str(error),
        ), error
        return
    pytest.fail(f"answered with {reply!r}")


def test_a_user_of_an_older_file_is_told_what_a_push_needs(hardened: HardenedServer) -> None:
    # given an actor as it was before pushes were transactions, or without what a function calls
    address = with_password(hardened.url("actor"), hardened.password("actor"))
    link = ActorLink(address, RUN, "actor")
    with hardened.client("admin") as admin, contextlib.closing(link):
        (line,) = (text for text in admin.acl_list() if text.startswith("user actor "))
        rules = re.findall(r"\([^)]*\)|\S+", line)[2:]
        try:
            for lacking in (" +multi", " +hexists"):
                older = re.findall(r"\([^)]*\)|\S+", line.replace(lacking, ""))[2:]
                admin.execute_command("ACL", "SETUSER", "actor", "reset", *older)

                # when it pushes, then it is told what to do
                with pytest.raises(RedisDenied, match=r"as an admin, bring .*docker/users\.acl"):
                    link.push("a#9", 1, b"block", 4)
        finally:
            admin.execute_command("ACL", "SETUSER", "actor", "reset", *rules)


@pytest.mark.fault(40)
def test_what_is_refused_is_in_the_servers_log_with_its_user(
    hardened: HardenedServer, users: dict[str, redis.Redis]
) -> None:
    # given
    users["admin"].execute_command("ACL LOG", "RESET")

    # when an actor reaches for the weights
    with pytest.raises(redis.exceptions.NoPermissionError):
        users["actor"].hset(f"{K}weights", "version", 9)

    # then
    (entry,) = hardened.refusals()
    assert entry["username"] == "actor"
    assert entry["reason"] == "key"
    assert entry["object"] == f"{K}weights"


@pytest.mark.fault(39)
@pytest.mark.parametrize("password", [None, "", "wrong"])
def test_nobody_gets_in_without_the_password(
    hardened: HardenedServer, password: str | None
) -> None:
    for user in (None, "default", *USERS):
        with (
            redis.Redis(
                port=hardened.port,
                username=user,
                password=password,
                retry=Retry(NoBackoff(), 0),
            ) as client,
            pytest.raises(redis.RedisError, match=r"NOAUTH|[Aa]uthenticat|invalid"),
        ):
            client.ping()


@pytest.mark.parametrize("user", USERS)
def test_as_the_file_comes_nobody_can_log_in(user: str) -> None:
    # given the lines as they are in the repository
    lines = (ROOT / "docker" / "users.acl").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"user {user} ")]

    # then each has one password, of which nobody knows what it is the hash of
    assert re.findall(r" #(\S+)", line) == ["0" * 64]
    assert not re.search(r" (>\S+|nopass)", line)
    assert lines[0] == "user default off resetpass resetkeys resetchannels -@all"


def test_the_file_for_the_server_is_what_the_server_then_has(users: dict[str, redis.Redis]) -> None:
    expected = {
        "save": "",
        "appendonly": "no",
        "maxmemory": str(1024**3),
        "maxmemory-policy": "noeviction",
        "proto-max-bulk-len": str(128 * 1024**2),
        "client-query-buffer-limit": str(160 * 1024**2),
        "bind": "127.0.0.1 -::1",
        "protected-mode": "yes",
        "enable-debug-command": "no",
        "enable-protected-configs": "no",
        "enable-module-command": "no",
        "maxclients": "4096",
        "tcp-keepalive": "60",
    }
    assert {name: users["admin"].config_get(name)[name] for name in expected} == expected
    limits = users["admin"].config_get("client-output-buffer-limit")["client-output-buffer-limit"]
    assert f"normal {256 * 1024**2} {160 * 1024**2} 30" in limits
    assert users["admin"].config_get("maxmemory-clients")["maxmemory-clients"] == "25%"


# The programs under their users.


def start_all(
    programs: Programs, guarded: HardenedServer, *options: str, cold: bool = False
) -> list[Program]:
    """A learner and an actor, each as its own user."""
    run = ("--run", guarded.run)
    play, learn = ("impala-actor", *run), ("impala-learner", *options, *run, "--run-dir", "run")
    learner = programs.start(*learn, cold=cold, **guarded.login("learner"))
    return [learner, programs.start(*play, cold=cold, **guarded.login("actor"))]


def status(programs: Programs, guarded: HardenedServer) -> str:
    code, output = programs.run(
        "impala-status", "--run", guarded.run, "--json", **guarded.login("monitor")
    )
    assert code == 0, output
    return output


@pytest.mark.processes
def test_the_programs_train_under_their_own_users_without_one_refusal(
    programs: Programs, guarded: HardenedServer
) -> None:
    # when a run goes from its start to its end, with somebody looking
    learner, actor = start_all(programs, guarded, *ENDLESS)
    learner.says("first batch is here")
    during = status(programs, guarded)
    learner.send(signal.SIGTERM)
    assert learner.code() == 130, learner.output

    # then
    assert f'"{actor.pid}"' in during
    assert '"residual": 0' in during
    assert "warning" not in learner.output.lower()
    code, output = programs.run(
        "impala-eval", "--run", guarded.run, "--episodes", "2", **guarded.login("monitor")
    )
    assert code == 0, output
    actor.send(signal.SIGTERM)
    assert actor.code() == 0, actor.output
    assert guarded.refusals() == []
    assert '"foreign": 0' in status(programs, guarded)


@pytest.mark.parametrize(
    ("user", "expected"), [("monitor", 5), ("learner", 5), ("actor", 5), ("admin", 0)]
)
@pytest.mark.processes
def test_only_an_admin_deletes_a_run(
    programs: Programs, guarded: HardenedServer, user: str, expected: int
) -> None:
    # given a finished run
    address = with_password(guarded.url("learner"), guarded.password("learner"))
    link = LearnerLink(address, guarded.run, "me", 60.0)
    link.open()
    link.release()
    link.close()

    # when
    code, output = programs.run(
        "impala-status", "--delete", "--run", guarded.run, **guarded.login(user)
    )

    # then
    assert code == expected, output
    with guarded.client("admin") as admin:
        assert bool(admin.exists(link.keys.stats)) == (expected != 0)


def learned(guarded: HardenedServer) -> int:
    """Blocks that were trained on, by books that must balance."""
    address = with_password(guarded.url("monitor"), guarded.password("monitor"))
    with contextlib.closing(MonitorLink(address, guarded.run, "test")) as link:
        books = link.read_books()
    assert residual(books) == 0, books
    return int(books["consumed"])


def goes_on(guarded: HardenedServer) -> None:
    """Waits until more was trained on."""
    with_more = learned(guarded) + 5
    eventually(lambda: learned(guarded) > with_more, what="training to go on")


@pytest.mark.fault(59)
@pytest.mark.processes
@pytest.mark.parametrize(
    "harm",
    [
        "HSET {}stats produced 99999999999999999999",
        "LPUSH {}seq x",
        *in_full("HSET {}stats consumed nonsense", "HSET {}trajectories f v", "HSET {}pushing f v"),
    ],
)
def test_what_an_actors_password_breaks_the_learner_mends_and_goes_on(
    programs: Programs, any_guarded: HardenedServer, harm: str
) -> None:
    # given a run at work
    guarded = any_guarded
    learner, actor = start_all(programs, guarded, *ENDLESS)
    learner.says("first batch is here")
    words = harm.format(f"impala:{{{guarded.run}}}:").split()

    # when somebody with the password of `actor` breaks a key, as he may
    def broken() -> bool:
        with guarded.client("actor") as thief:
            if words[0] == "LPUSH":
                thief.hdel(words[1], *thief.hgetall(words[1]) or ["none"])
            with contextlib.suppress(redis.ResponseError):
                if words[1].endswith("trajectories"):
                    thief.ltrim(words[1], 1, 0)
                thief.execute_command(*words)
                return True
        return False

    eventually(broken, what="a moment at which the key may be broken")

    # then both go on by themselves, with books that balance
    if not words[1].endswith("pushing"):  # which the next push writes over
        learner.says("SOMEBODY HAD BROKEN THE RUN'S KEYS")
    eventually(lambda: _is_sound(guarded), what="the books to be mended")
    goes_on(guarded)
    assert "Traceback" not in learner.output + actor.output
    assert learner.process.poll() is None
    assert actor.process.poll() is None
    assert '"broken": []' in status(programs, guarded)


def _is_sound(guarded: HardenedServer) -> bool:
    address = with_password(guarded.url("monitor"), guarded.password("monitor"))
    with contextlib.closing(MonitorLink(address, guarded.run, "test")) as link:
        reading = link.read()
    return not reading["broken"] and not reading["residual"]


def test_the_learners_of_a_group_need_no_other_rights_than_one(
    any_guarded: HardenedServer,
) -> None:
    # given a group of two under the user of a learner, and four blocks
    guarded = any_guarded
    urls = {
        user: with_password(guarded.url(user), guarded.password(user))
        for user in ("learner", "actor")
    }
    with contextlib.ExitStack() as links:
        actor = ActorLink(urls["actor"], guarded.run, "actor")
        ranks = [LearnerLink(urls["learner"], guarded.run, "me", 60.0, rank, 2) for rank in (0, 1)]
        for link in (actor, *ranks):
            links.enter_context(contextlib.closing(link))
        ranks[0].check_server()
        ranks[0].open()
        ranks[0].announce("{}", "f", "running")
        ranks[1].join()
        for number in range(1, 5):
            assert actor.push("a#1", number, b"block %d" % number, 4).stored

        # when both claim, some of the list and all that is left of it, then each got its own
        got = [rank.settle_and_claim(Settled(), 2 - number) for number, rank in enumerate(ranks)]
        assert got == [([b"block 1", b"block 2"], 2), ([b"block 3"], 1)]
        assert ranks[1].settle_and_claim(Settled(1), 5) == ([b"block 4"], 0)
        ranks[1].join()
    assert guarded.refusals() == []


def test_an_actors_password_silences_another_actor_and_the_books_show_it(
    any_guarded: HardenedServer,
) -> None:
    # given an open run, and an actor that has pushed
    guarded = any_guarded
    urls = {
        user: with_password(guarded.url(user), guarded.password(user))
        for user in ("learner", "actor", "monitor")
    }
    with contextlib.ExitStack() as links:
        learner = LearnerLink(urls["learner"], guarded.run, "me", 60.0)
        actor = ActorLink(urls["actor"], guarded.run, "actor")
        monitor = MonitorLink(urls["monitor"], guarded.run, "test")
        for link in (learner, actor, monitor):
            links.enter_context(contextlib.closing(link))
        learner.open()
        learner.announce("{}", "f", "running")
        assert actor.push("victim#9", 1, b"block", 4).stored

        # when somebody with the same user's password looks up its number and raises it
        with guarded.client("actor") as thief:
            (name,) = thief.hgetall(learner.keys.seq)
            thief.hset(learner.keys.seq, name, "999999 1")

        # then it is not heard any more, and its blocks count as pushed twice
        assert actor.push("victim#9", 2, b"block", 4).fate == "duplicate"
        assert monitor.read_books()["dup_push"] == 1


@pytest.mark.fault(60)
@pytest.mark.processes
def test_a_flood_by_a_strict_actors_password_holds_nobody_up_for_long(
    programs: Programs, any_guarded: HardenedServer
) -> None:
    # given a run whose only actor calls no function
    guarded = any_guarded
    learn = ("impala-learner", *ENDLESS, "--run", guarded.run, "--run-dir", "run")
    learner = programs.start(*learn, **guarded.login("learner"))
    learner.says("waiting for the first batch")
    play = ("impala-actor", "--plain-push", "--run", guarded.run)
    actor = programs.start(*play, **guarded.login("strict-actor"))
    learner.says("first batch is here")

    # when somebody with its password pushes junk, and the learner is killed within the flood
    with guarded.client("strict-actor") as thief:
        for _ in range(20):
            thief.rpush(f"impala:{{{guarded.run}}}:trajectories", *["x"] * 10_000)
    learner.send(signal.SIGKILL)
    learner.code()
    refused_before = _refused(guarded)
    learner = programs.start(*learn, "--resume", **guarded.login("learner"))

    # then the next one refuses the rest in seconds, and the actor goes on
    learner.says("first batch is here")
    goes_on(guarded)
    assert _refused(guarded) > max(refused_before, 150_000)
    assert learner.output.count("refused a block") <= 6
    assert actor.process.poll() is None
    assert "Traceback" not in learner.output + actor.output


def _refused(guarded: HardenedServer) -> int:
    address = with_password(guarded.url("monitor"), guarded.password("monitor"))
    with contextlib.closing(MonitorLink(address, guarded.run, "test")) as link:
        books = link.read_books()
    assert residual(books) == 0
    return int(books["dead_lettered"])


@pytest.mark.fault(62)
@pytest.mark.processes
def test_a_heartbeat_of_100_mb_by_a_strict_actors_password_does_not_burden_status(
    programs: Programs, any_guarded: HardenedServer
) -> None:
    # given a run, and somebody with that password
    guarded = any_guarded
    address = with_password(guarded.url("learner"), guarded.password("learner"))
    with contextlib.closing(LearnerLink(address, guarded.run, "me", 60.0)) as link:
        link.open()
    with guarded.client("strict-actor") as thief:
        thief.hset(f"impala:{{{guarded.run}}}:actor:a", "host", "h" * (100 * 2**20))

    # when somebody looks
    output = status(programs, guarded)

    # then
    assert '"host": "(104857600 bytes)"' in output
    assert len(output) < 5000


@pytest.mark.processes
def test_a_version_raised_by_a_learners_password_is_written_over_and_told(
    programs: Programs, any_guarded: HardenedServer
) -> None:
    # given a run at work
    guarded = any_guarded
    learner, actor = start_all(programs, guarded, *ENDLESS)
    learner.says("first batch is here")
    weights = f"impala:{{{guarded.run}}}:weights"

    # when somebody with the password of `learner` raises the version
    with guarded.client("learner") as thief:
        thief.hset(weights, "version", 10**29)

        # then the learner says so, and publishes as before
        learner.says("SOMEBODY ELSE WROTE THE WEIGHTS' VERSION 100000000000000000000000000000")
        eventually(lambda: int(thief.hget(weights, "version") or 0) < 10**9)
    goes_on(guarded)
    assert actor.process.poll() is None


@pytest.mark.processes
def test_a_strict_actor_trains_a_run_without_one_refusal(
    programs: Programs, guarded: HardenedServer
) -> None:
    # given an actor that calls no function
    actor = programs.start(
        *("impala-actor", "--run", guarded.run, "--plain-push"), **guarded.login("strict-actor")
    )
    learner = programs.start(
        *("impala-learner", *SHORT, "--run", guarded.run, "--run-dir", "run"),
        **guarded.login("learner"),
    )

    # then
    assert learner.code() == 0, learner.output + actor.output
    assert guarded.refusals() == []
    assert '"residual": 0' in status(programs, guarded)
    actor.send(signal.SIGTERM)
    assert actor.code() == 0, actor.output


@pytest.mark.processes
def test_one_command_trains_on_a_server_with_users(
    programs: Programs, guarded: HardenedServer
) -> None:
    # given the learner's password in a file, for all that impala-train starts: its actor, too, is
    # then the learner, which may push
    login = guarded.login("learner")
    train = programs.start(
        *("impala-train", *SHORT, "--run", guarded.run, "--run-dir", "run"),
        *("--redis-password-file", login["IMPALA_REDIS_PASSWORD_FILE"]),
        *("--redis-url", login["IMPALA_REDIS_URL"]),
    )
    assert train.code() == 0, train.output + _logs(programs)
    assert "secret" not in train.output + _logs(programs)


def _logs(programs: Programs) -> str:
    return "".join(path.read_text() for path in (programs.folder / "run" / "logs").glob("*.log"))


@pytest.mark.processes
def test_a_learner_that_misses_the_functions_says_who_loads_them_and_how(
    programs: Programs, guarded: HardenedServer
) -> None:
    # given a server without them, or with those of another version
    learner = ("impala-learner", *SHORT, "--run", guarded.run, "--run-dir", "run")
    with guarded.client("admin") as admin:
        admin.function_flush()
        code, output = programs.run(*learner, **guarded.login("learner"))
        assert code == 5, output
        admin.function_load("#!lua name=impala5\n" + OTHER_PUSH)
        code, output = programs.run(*learner, **guarded.login("learner"))
        assert code == 5, output

    # when the admin runs the command that it told
    (command,) = re.findall(r"run: (redis-cli .*)", output)
    if shutil.which("redis-cli") is None:
        pytest.skip("no redis-cli")
    admin_login = {"REDISCLI_AUTH": guarded.password("admin")}
    command = command.replace("NAME", "admin")  # as users.acl calls the one that may
    done = programs.shell(f"bash -c '{command}'", **admin_login)
    assert done.code() == 0, done.output

    # then it opens the run
    again = programs.start(*learner, **guarded.login("learner"))
    again.says("ready")


@pytest.mark.processes
def test_a_learner_that_may_not_list_functions_uses_them_all_the_same(
    programs: Programs, guarded: HardenedServer
) -> None:
    # given
    learner = ("impala-learner", *SHORT, "--run", guarded.run, "--run-dir", "run")
    with guarded.client("admin") as admin:
        admin.execute_command("ACL", "SETUSER", "learner", "-function|list", "-config|get")
        admin.function_flush()
        code, output = programs.run(*learner, **guarded.login("learner"))
        assert code == 5, output
        assert "FUNCTION LOAD REPLACE" in output

    # when
    guarded.load_functions()

    # then
    programs.start(*learner, **guarded.login("learner")).says("ready")


@pytest.mark.processes
def test_functions_saved_once_are_there_after_every_restart(
    programs: Programs, guarded: HardenedServer
) -> None:
    # given functions that were saved before a run began
    with guarded.client("admin") as admin:
        admin.save()
    learner, actor = start_all(programs, guarded, *ENDLESS)
    learner.says("first batch is here")
    before = (guarded.directory / "dump.rdb").read_bytes()

    # when the server is started again, and the learner has noticed that it was away
    with guarded.away():
        learner.says("waiting for Redis")

    # then the learner opens the run again, by itself and with nothing of it left from before
    learner.says("Redis is back")
    with guarded.client("monitor") as monitor:
        eventually(
            lambda: int(monitor.hget(f"impala:{{{guarded.run}}}:stats", "consumed") or 0) > 10,
            what="training after the restart",
        )
    assert (guarded.directory / "dump.rdb").read_bytes() == before
    assert actor.process.poll() is None, actor.output


# Refusals are final.

PROGRAMS = {
    "learner": ("impala-learner", *SHORT),
    "actor": ("impala-actor",),
    "monitor": ("impala-status",),
    "monitor-eval": ("impala-eval",),
    "learner-train": ("impala-train", *SHORT),
}


@pytest.mark.processes
@pytest.mark.fault(39)
@pytest.mark.parametrize("secret", ["none", "wrong"])
@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_program_without_the_right_password_ends_at_once(
    programs: Programs, guarded: HardenedServer, kind: str, secret: str
) -> None:
    # given
    user = kind.partition("-")[0]
    login = {"IMPALA_REDIS_URL": guarded.url(user)}
    if secret == "wrong":
        file = programs.folder / "password"
        file.write_text("not-the-secret\n")
        file.chmod(0o600)
        login["IMPALA_REDIS_PASSWORD_FILE"] = str(file)

    # when
    code, output = programs.run(*PROGRAMS[kind], "--run", guarded.run, timeout_s=20, **login)

    # then it says how to give one, has knocked once or twice, and tells no secret
    assert code == 5, output
    assert "IMPALA_REDIS_URL=redis://user:password@host" in output
    assert "secret" not in output
    assert "waiting" not in output
    assert sum(int(entry["count"]) for entry in guarded.refusals()) <= 2


@pytest.mark.processes
@pytest.mark.fault(39)
def test_a_revoked_user_ends_its_program_within_seconds(
    programs: Programs, guarded: HardenedServer
) -> None:
    # given a run at work; a warm program would not show its own command
    learner, actor = start_all(programs, guarded, *ENDLESS, cold=True)
    learner.says("first batch is here")
    cmdlines = [Path(f"/proc/{p.pid}/cmdline").read_bytes() for p in (learner, actor)]

    with guarded.client("admin") as admin:
        for user, program in (("actor", actor), ("learner", learner)):
            # when
            admin.execute_command("ACL", "DELUSER", user)
            began = time.monotonic()

            # then
            assert program.code(timeout_s=20) == 5, program.output
            assert time.monotonic() - began < 5.0

    # and they did not knock again and again, nor told a secret
    assert sum(int(entry["count"]) for entry in guarded.refusals()) <= 12
    for program, cmdline in zip((learner, actor), cmdlines, strict=True):
        assert "Traceback" not in program.output
        assert "secret" not in program.output
        assert b"secret" not in cmdline
    link = MonitorLink(
        with_password(guarded.url("admin"), guarded.password("admin")), guarded.run, "test"
    )
    assert residual(link.read_books()) == 0
    link.close()


# Passwords, and where they may come from.

HOLDING_A_SECRET = [
    "redis://:hush-word@localhost:1/0",
    "redis://alice:hush-word@localhost:1/0",
    "rediss://alice:hush-word@localhost:1/0",
    "redis://localhost:1/0?password=hush-word",
    "redis://localhost:1/0?db=1&PASSWORD=hush-word",
    "rediss://localhost:1/0?ssl_password=hush-word",
    "unix:///no.sock?password=hush-word",
    "alice:hush-word@localhost",
    "redis://:hush/word@localhost:1/0",
    "redis://:hush[word@localhost:1/0",
]


@pytest.mark.processes
@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_password_on_the_command_line_is_refused_by_every_program(
    programs: Programs, kind: str
) -> None:
    for option in ("--redis-url", "--redis_url"):
        code, output = programs.run(
            *PROGRAMS[kind], "--run", "x", option, "redis://:hush-word@localhost:1/0"
        )
        assert code == 2
        assert "IMPALA_REDIS_URL" in output
        assert "IMPALA_REDIS_PASSWORD_FILE" in output
        assert "hush" not in output


@pytest.mark.parametrize("url", HOLDING_A_SECRET)
def test_a_password_in_any_part_of_a_typed_address_is_noticed(url: str) -> None:
    # when
    done = CliRunner().invoke(status_command, ["--run", "x", "--redis-url", url])

    # then
    assert done.exit_code == 2
    assert "holds a password" in done.output
    assert "hush" not in done.output


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:1/0",
        "redis://alice@localhost:1/0",
        "redis://alice:@localhost:1/0",
        "redis://[::1]:1/0",
        "redis://alice@[::1]:1/0?db=2",
        "unix:///no.sock?db=0",
    ],
)
def test_an_address_without_a_password_may_be_typed(url: str) -> None:
    done = CliRunner().invoke(status_command, ["--run", "x", "--redis-url", url])
    assert done.exit_code == 4, done.output


@pytest.mark.parametrize(
    ("text", "mode", "sentence"),
    [
        (None, 0o600, "cannot read the password file"),
        ("", 0o600, "is empty"),
        ("\nsecond line", 0o600, "is empty"),
        ("\udcff", 0o600, "holds no text"),
        ("\udcff\udcfes\0e\0c\0", 0o600, "UTF-16 or UTF-32: save it as UTF-8"),
        ("s\0e\0c\0", 0o600, "UTF-16 or UTF-32: save it as UTF-8"),
        ("\ufeff\n", 0o600, "is empty"),
    ],
    ids=["missing", "empty", "empty first line", "binary", "UTF-16", "no mark", "a mark alone"],
)
def test_a_password_file_of_no_use_gets_a_sentence(
    tmp_path: Path, text: str | None, mode: int, sentence: str
) -> None:
    # given
    file = tmp_path / "password"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
        file.chmod(mode)

    # when
    done = CliRunner().invoke(status_command, ["--run", "x", "--redis-password-file", str(file)])

    # then
    assert done.exit_code == 2
    assert sentence in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("text", ["\ufeffopen sesame\r\n", "\ufeffopen sesame"])
def test_a_byte_order_mark_is_no_part_of_a_password(
    own_server: OwnServer, tmp_path: Path, text: str
) -> None:
    # given a server with a password, and a file as the Notepad of Windows writes it
    file = tmp_path / "password"
    file.write_text(text)
    file.chmod(0o600)
    with own_server.client() as operator:
        operator.config_set("requirepass", "open sesame")

    # when
    words = ["--run", "x", "--redis-url", own_server.url, "--redis-password-file", str(file)]
    done = CliRunner().invoke(status_command, words)

    # then it was let in, and found no run
    assert done.exit_code == 14, done.output


def test_a_folder_is_no_password_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        status_command, ["--run", "x"], env={"IMPALA_REDIS_PASSWORD_FILE": str(tmp_path)}
    )
    assert done.exit_code == 2
    assert "cannot read the password file" in done.output


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_password_file_that_everybody_can_read_gets_a_warning(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    # given
    file = tmp_path / "password"
    file.write_text("hush-word\n")
    file.chmod(mode)

    # when
    done = CliRunner().invoke(
        status_command,
        ["--run", "x", "--redis-url", "redis://localhost:1/0", "--redis_password_file", str(file)],
    )

    # then
    assert done.exit_code == 4, done.output
    assert ("chmod 600" in done.output) is warned
    assert "hush" not in done.output


def test_train_with_a_password_and_no_server_to_use_it_on_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hush-word\n")
    done = CliRunner().invoke(train_command, env={"IMPALA_REDIS_PASSWORD_FILE": str(file)})
    assert done.exit_code == 2
    assert "no server that wants a password" in done.output


def test_the_address_outranks_the_file(guarded: HardenedServer, tmp_path: Path) -> None:
    # given the right password in the environment's address, and a wrong one in a file
    file = tmp_path / "wrong"
    file.write_text("wrong\n")
    url = with_password(guarded.url("monitor"), guarded.password("monitor"))

    # when
    done = CliRunner().invoke(
        status_command,
        ["--run", "nobody"],
        env={"IMPALA_REDIS_URL": url, "IMPALA_REDIS_PASSWORD_FILE": str(file)},
    )

    # then it is refused for the run it may not read, not for the password
    assert done.exit_code == 5
    assert "lacks a permission" in done.output


# What the learner warns of.


def warnings(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """What looking at the server logs."""
    caplog.clear()
    client = connect(url, "test")
    try:
        with caplog.at_level(logging.WARNING):
            check_server(client, url)
    finally:
        client.close()
    return caplog.text


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


def test_a_server_of_this_machine_alone_needs_no_warning(
    any_server: OpenServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert warnings(any_server.url, caplog) == ""
    assert warnings(any_server.tcp_url, caplog) == ""
    assert warnings(f"redis://localhost:{any_server.port}/0", caplog) == ""


def test_a_server_open_to_the_network_is_warned_of_wherever_it_is_reached_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given a server on every address, without a password
    with OwnServer(tmp_path, "--bind", "*", "--protected-mode", "no") as own:
        remote = f"redis://{own_address()}:{own.port}/0"
        for url in (own.url, remote):
            # then
            found = warnings(url, caplog)
            assert found.count("UNPROTECTED SERVER") == 1
            assert "SECURITY.md" in found
            assert f"-p {own.port} CONFIG SET bind 127.0.0.1" in found

        # and from elsewhere even when it does not tell its settings
        with own.client() as operator:
            operator.execute_command("ACL", "SETUSER", "default", "-config")
        assert "UNPROTECTED SERVER" in warnings(remote, caplog)
        assert warnings(own.url, caplog) == ""


def test_a_server_with_a_password_needs_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with OwnServer(
        tmp_path, "--bind", "*", "--protected-mode", "no", "--requirepass", "hush"
    ) as own:
        found = warnings(f"redis://:hush@{own_address()}:{own.port}/0", caplog)
        assert "UNPROTECTED" not in found


def test_protected_mode_needs_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with OwnServer(tmp_path, "--bind", "*", "--protected-mode", "yes") as own:
        assert warnings(own.url, caplog) == ""


@pytest.mark.fault(51)
def test_a_server_with_snapshots_is_warned_of(
    own_server: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    with own_server.client() as operator:
        operator.config_set("save", "3600 1")
        found = warnings(own_server.url, caplog)

        # then, and the remedy is the right one
        assert found.count("snapshots (save 3600 1)") == 1
        (remedy,) = re.findall(r"(CONFIG SET save) ''", found)
        operator.execute_command(*remedy.split(), "")
    assert warnings(own_server.url, caplog) == ""


def test_the_longest_value_is_asked_for_and_taken_for_granted_where_that_is_denied(
    own_server: OwnServer,
) -> None:
    with own_server.client() as operator:
        operator.config_set("proto-max-bulk-len", 5_000_000)
        client = connect(own_server.url, "test")
        assert check_server(client, own_server.url).bulk_bytes == 5_000_000
        operator.execute_command("ACL", "SETUSER", "default", "-config|get")
        assert check_server(client, own_server.url).bulk_bytes == 512 * 1024**2
        client.close()


# SECURITY.md, typed in.


def blocks() -> list[str]:
    """What SECURITY.md tells to type, terminal by terminal."""
    return re.findall(r"```sh\n(.*?)```", SECURITY, re.DOTALL)


@pytest.mark.processes
@pytest.mark.skipif(
    not (shutil.which("redis-server") and shutil.which("redis-cli") and shutil.which("openssl")),
    reason="needs redis-server, redis-cli and openssl",
)
def test_the_steps_of_security_md_work_as_they_stand(programs: Programs) -> None:
    # given a checkout, with a port of its own, one address, and a short run
    folder, port = programs.folder, free_port()
    for name in ("docker", "common"):
        (folder / name).symlink_to(ROOT / name)
    users, certificates, start, functions, learn, act, look, revoke = (
        block.replace("6379", str(port))
        .replace("bind * -::*", "bind 127.0.0.1")
        .replace("--preset cartpole", " ".join(SHORT))
        .replace("\nimpala-", "\nexec impala-")
        .replace("redis-server redis.conf", "exec redis-server redis.conf")
        for block in blocks()
    )
    count = iter(range(99))

    def typed(block: str) -> Program:
        script = folder / f"{next(count)}.sh"
        script.write_text(f"cd server 2>/dev/null\nset -eu\n{block}")
        return programs.shell(f"bash {script}")

    # when each is typed in
    for block in (users, certificates.removeprefix("cd server\n")):
        assert typed(block).code() == 0, block
    running = typed(start)
    running.says("Ready to accept connections")
    loading = typed(functions)
    assert loading.code() == 0
    assert loading.output.split() == ["impala5", "OK"]
    learner, actor = typed(learn), typed(act)

    # then the run is learned, and seen
    assert learner.code() == 0, learner.output + actor.output
    seen = typed(look)
    assert seen.code() == 0, seen.output
    assert "run      cartpole, finished" in seen.output
    assert "warning" not in (learner.output + actor.output + seen.output).lower()

    # and nothing was refused until the actor was revoked, which it is for good
    revoked = typed(revoke)
    assert revoked.code() == 0, revoked.output
    assert revoked.output.split() == ["1", "OK"]
    assert actor.code(20) == 5, actor.output
    kept = (folder / "server" / "users.acl").read_text()
    assert "user actor" not in kept
    assert "user learner" in kept

    # and no secret lies open
    secrets = [path.read_text().strip() for path in (folder / "server/secrets").iterdir()]
    assert len(set(secrets)) == len(USERS)
    for path in (folder / "server/secrets").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    for secret in secrets:
        assert secret not in kept + learner.output + actor.output + seen.output


def test_security_md_names_only_files_and_tests_that_exist() -> None:
    for name in re.findall(r"`(tests/[\w/]+\.py)`|\]\((?!https?:)([^)]+)\)", SECURITY):
        assert (ROOT / "".join(name)).exists(), name


def test_security_md_has_the_users_of_the_file() -> None:
    lines = (ROOT / "docker" / "users.acl").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["default", *sorted(USERS, key=_row)]
    for user in USERS:
        assert SECURITY.count(f"\n| `{user}` |") == 1


def _row(user: str) -> int:
    return ["actor", "strict-actor", "learner", "monitor", "admin"].index(user)
