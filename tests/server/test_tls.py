"""TLS to the server: what fits works, each failure ends a program at once with its cause.

Against a real Redis with real certificates, made by the commands of SECURITY.md.
"""

import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from full import in_full

from chaos.servers import free_port
from impala_redis.common.errors import RedisDenied, RedisUnreachable
from impala_redis.common.local import children
from impala_redis.common.server import tls
from impala_redis.common.server.address import cli_command
from impala_redis.common.server.connection import connect, translated
from impala_redis.common.server.suitability import check_server
from support import ROOT, Programs, eventually, tie_to_us, usable_servers

SHORT = ("--preset", "cartpole", "--total-frames", "10000", "--stop-at-return", "none")
ENDLESS = ("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none")
# A cause is named within this time: a program's start and at worst one time-out.
SOON_S = 15.0


def _has_tls(binary: Path) -> bool:
    """Whether the server was built with TLS: else it does not know the option."""
    done = subprocess.run(
        [binary, "--port", "0", "--tls-cert-file", "/no/such", "--tls-port", "1"],
        capture_output=True,
        text=True,
        timeout=10,
    )
    return "tls-port" not in done.stdout + done.stderr


def _binaries() -> list[Path]:
    return [path for path in usable_servers() if shutil.which("openssl") and _has_tls(path)]


BINARIES = _binaries()
pytestmark = pytest.mark.skipif(not BINARIES, reason="needs openssl and a server with TLS")


class Certificates:
    """An authority and what it has signed, made by the commands of SECURITY.md."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"```sh\ncd server\n(openssl.*?)```", text, re.DOTALL)
        self._authority, self._server = re.findall(r"openssl(?:.*?\\\n)+.*?\n", block)
        self._run(self._authority)
        self._run(self._server)

    def issue(self, name: str) -> None:
        """One more certificate by the same authority, for a client."""
        self._run(self._server.replace("server.", f"{name}."))

    def expire(self) -> None:
        """Replaces the server's certificate by one that ended yesterday."""
        self._run(
            "openssl x509 -x509toreq -copy_extensions copy -in server.crt -signkey server.key "
            "-out old.csr; openssl x509 -req -in old.csr -CA ca.crt -CAkey ca.key -CAcreateserial "
            "-days -1 -copy_extensions copy -out server.crt"
        )

    def path(self, name: str) -> Path:
        """A file of it."""
        return self.folder / name

    def _run(self, command: str) -> None:
        subprocess.run(
            ["bash", "-ec", command], cwd=self.folder, check=True, capture_output=True, timeout=30
        )


@dataclass
class Place:
    """A server, and the authority that vouches for it."""

    port: int
    certificates: Certificates
    scheme: str = "rediss"

    def url(self, host: str = "localhost", ca: Path | None = None, **options: object) -> str:
        """Its address; `ca` another authority, other options as they are given."""
        given = {"ssl_ca_certs": ca or self.certificates.path("ca.crt"), **options}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return f"{self.scheme}://{host}:{self.port}/0" + (f"?{query}" if self.encrypted else "")

    @property
    def encrypted(self) -> bool:
        """Whether it is addressed by TLS."""
        return self.scheme == "rediss"


class TlsServer:
    """A server with TLS only, or (`encrypted` off) without; leaving the `with` ends it."""

    def __init__(
        self, certificates: Certificates, *options: str, encrypted: bool = True, port: int = 0
    ) -> None:
        self.place = Place(port or free_port(), certificates)
        self._options, self._encrypted = options, encrypted
        self.log = certificates.path("server.log")
        self.start()

    def start(self) -> None:
        """Starts it; returns when it listens."""
        place = self.place
        ports = ["--port", "0", "--tls-port", str(place.port)]
        files = [
            *("--tls-cert-file", place.certificates.path("server.crt")),
            *("--tls-key-file", place.certificates.path("server.key")),
            *("--tls-ca-cert-file", place.certificates.path("ca.crt")),
        ]
        self._process = children.spawn(
            [
                BINARIES[0],
                *(ports if self._encrypted else ("--port", str(place.port))),
                *(files if self._encrypted else ()),
                *(
                    "--bind",
                    "127.0.0.1",
                    "127.0.0.2",
                    "--save",
                    "",
                    "--dir",
                    place.certificates.folder,
                ),
                *("--maxmemory", "200mb", *self._options),
            ],
            log_file=self.log,
            death_signal=signal.SIGKILL,
        )
        eventually(self._listens, what="the server to listen")

    def kill(self) -> None:
        """Ends it without a word to its clients."""
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Place:
        return self.place

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            socket.create_connection(("127.0.0.1", self.place.port), 1).close()
        except OSError:
            return False
        return True


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The server's, and one for a client."""
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.issue("client")
    return made


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of an authority that nobody knows."""
    made = Certificates(tmp_path_factory.mktemp("stranger"))
    made.issue("client")
    return made


@pytest.fixture(scope="module")
def place(certificates: Certificates) -> Iterator[Place]:
    """A server with TLS that asks its clients for no certificate."""
    with TlsServer(certificates, "--tls-auth-clients", "no") as running:
        yield running


@pytest.fixture(scope="module")
def strict(certificates: Certificates) -> Iterator[Place]:
    """A server with TLS that asks its clients for a certificate."""
    with TlsServer(certificates, "--tls-auth-clients", "yes") as running:
        yield running


@pytest.fixture(scope="module")
def clear(certificates: Certificates) -> Iterator[Place]:
    """A server without TLS."""
    with TlsServer(certificates, encrypted=False) as running:
        yield running


def ping(url: str) -> None:
    client = connect(url, "test")
    try:
        with translated(client):
            client.ping()
    finally:
        client.close()


def mutual(certificates: Certificates, name: str = "client") -> dict[str, Path]:
    return {
        "ssl_certfile": certificates.path(f"{name}.crt"),
        "ssl_keyfile": certificates.path(f"{name}.key"),
    }


# What fits.


def test_a_known_authority_and_the_right_name_are_let_in(place: Place) -> None:
    ping(place.url())
    ping(place.url("127.0.0.1"))


def test_a_client_with_a_certificate_is_let_in_where_one_is_wanted(
    strict: Place, certificates: Certificates
) -> None:
    ping(strict.url(**mutual(certificates)))


@pytest.mark.processes
def test_a_run_is_trained_over_tls_with_certificates_on_both_sides(
    programs: Programs, strict: Place, certificates: Certificates, run_name: str
) -> None:
    # given
    there = {"IMPALA_REDIS_URL": strict.url(**mutual(certificates)), "IMPALA_RUN": run_name}
    actor = programs.start("impala-actor", **there)
    learner = programs.start("impala-learner", *SHORT, "--run-dir", "run", **there)

    # then
    assert learner.code() == 0, learner.output
    actor.send(signal.SIGTERM)
    assert actor.code() == 0, actor.output

    # and the line that shows the queue can be typed as it stands
    assert "UNPROTECTED" not in learner.output
    (command,) = re.findall(r"queue: (redis-cli .*)", learner.output)
    if shutil.which("redis-cli"):
        shown = programs.shell(command)
        assert shown.code() == 0, shown.output
        assert re.fullmatch(r"\d+\s*", shown.output)


@pytest.mark.processes
def test_a_tls_server_that_is_killed_and_comes_back_is_no_failure_of_tls(
    programs: Programs, certificates: Certificates, run_name: str
) -> None:
    # given a run at work over TLS
    own = TlsServer(certificates, "--tls-auth-clients", "no")
    with own as there:
        variables = {"IMPALA_REDIS_URL": there.url(), "IMPALA_RUN": run_name}
        learner = programs.start("impala-learner", *ENDLESS, "--run-dir", "run", **variables)
        actor = programs.start("impala-actor", **variables)
        learner.says("first batch is here")

        # when the server is killed in the middle of it, and started again
        own.kill()
        learner.says("waiting for Redis")
        own.start()

        # then both go on
        learner.says("Redis is back")
        client = redis.Redis.from_url(there.url())
        stats = f"impala:{{{run_name}}}:stats"
        eventually(lambda: int(client.hget(stats, "consumed") or 0) > 10, what="training")
        client.close()
        for program in (learner, actor):
            assert program.process.poll() is None, program.output
            assert "TLS" not in program.output


# What does not.


MISFITS = [
    "wrong authority",
    "clear to tls",
    "tls to clear",
    "wrong name",
    "expired",
    "no certificate",
    "foreign certificate",
    "clear to strict tls",
    "no such file",
    "check turned off",
]


@pytest.fixture
def misfit(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    place: Place,
    strict: Place,
    clear: Place,
    certificates: Certificates,
    stranger: Certificates,
) -> Iterator[tuple[str, str]]:
    """An address that TLS cannot be agreed on with, and what must be said of it."""
    fits = {
        "wrong authority": (place.url(ca=stranger.path("ca.crt")), "certificate verify failed"),
        "wrong name": (place.url("127.0.0.2"), "certificate is not valid for '127.0.0.2'"),
        "no certificate": (strict.url(), "certificate required"),
        "foreign certificate": (strict.url(**mutual(stranger)), "unknown ca"),
        "clear to tls": (f"redis://localhost:{place.port}/0", "write rediss://"),
        "clear to strict tls": (f"redis://u:p@localhost:{strict.port}/0", "write rediss://"),
        "tls to clear": (clear.url(), "or somebody in between answers for it"),
        "no such file": (place.url(ca=tmp_path / "no.crt"), "no.crt, cannot be read"),
        "check turned off": (place.url(ssl_cert_reqs="none"), "turns a check of TLS off"),
    }
    if request.param != "expired":
        yield fits[request.param]
        return
    expired = Certificates(tmp_path)
    expired.expire()
    with TlsServer(expired, "--tls-auth-clients", "no") as old:
        yield old.url(), "certificate has expired"


@pytest.mark.fault(41)
@pytest.mark.parametrize("misfit", MISFITS, indirect=True)
def test_a_misfit_of_tls_is_final_and_has_its_cause(misfit: tuple[str, str]) -> None:
    url, cause = misfit
    for _ in range(5):  # each time, whoever of the two hangs up first
        began = time.monotonic()
        with pytest.raises(RedisDenied) as refused:
            ping(url)
        assert cause in str(refused.value)
        assert ":p@" not in str(refused.value)
        assert time.monotonic() - began < SOON_S
        if time.monotonic() - began > 1.0:
            break  # a silent server: each time takes a time-out


PROGRAMS = {
    "learner": ("impala-learner", *SHORT),
    "actor": ("impala-actor",),
    "status": ("impala-status",),
    "train": ("impala-train", *SHORT),
}


@pytest.mark.processes
@pytest.mark.fault(41)
@pytest.mark.parametrize(
    "misfit",
    [*MISFITS[:2], *in_full(*MISFITS[2:])],
    indirect=True,
)
def test_every_program_ends_with_the_cause_instead_of_waiting(
    programs: Programs, misfit: tuple[str, str]
) -> None:
    # given
    url, cause = misfit
    started = [
        programs.start(*command, "--run", "x", IMPALA_REDIS_URL=url)
        for command in PROGRAMS.values()
    ]

    # then
    for program in started:
        assert program.code(timeout_s=SOON_S * 2) == 5, program.output
        assert cause in program.output
        assert "Traceback" not in program.output
        assert "waiting" not in program.output


@pytest.mark.parametrize(
    "option", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_min_version=769"]
)
def test_no_option_turns_a_check_off(option: str) -> None:
    with pytest.raises(RedisDenied, match="turns a check of TLS off"):
        connect(f"rediss://localhost:1/0?{option}", "test")


@pytest.mark.parametrize(
    "option",
    [
        "ssl_ciphers=aNULL:%40SECLEVEL=0",
        "%73sl_ciphers=aNULL:%40SECLEVEL=0",
        "ssl_ca_certs=/etc/passwd&ssl_ciphers=aNULL",
        "ssl_exclude_verify_flags=VERIFY_X509_STRICT",
        "ssl_include_verify_flags=VERIFY_DEFAULT",
        "ssl_ca_path=/tmp",
        "ssl_ca_data=x",
        "ssl_validate_ocsp=false",
        "ssl_validate_ocsp_stapled=false",
        "ssl_ocsp_context=x",
        "ssl_ocsp_expected_cert=x",
        "ssl_of_a_later_redis_py=x",
    ],
)
@pytest.mark.parametrize("scheme", ["rediss", "rediss+sentinel"])
def test_no_other_option_of_tls_is_taken(scheme: str, option: str) -> None:
    address = f"{scheme}://user:hush@localhost:1/{'0' if scheme == 'rediss' else 'mymaster'}"
    with pytest.raises(RedisDenied, match="changes what TLS checks") as refused:
        connect(f"{address}?{option}", "test")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("option", ["SSL_CIPHERS=aNULL", "Ssl_Ca_Path=/tmp", "ssl-ciphers=aNULL"])
def test_an_option_of_tls_in_another_spelling_is_none(option: str) -> None:
    with pytest.raises(RedisUnreachable, match="there is no option"):
        connect(f"rediss://localhost:1/0?{option}", "test")


def test_an_option_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(RedisUnreachable, match="'ssl_cert_reqs' twice"):
        connect("rediss://localhost:1/0?ssl_cert_reqs=none&ssl_cert_reqs=required", "test")


def test_options_that_leave_every_check_on_do_no_harm(place: Place) -> None:
    ping(place.url(ssl_cert_reqs="required", ssl_check_hostname="true", ssl_min_version=772))


@pytest.mark.processes
@pytest.mark.parametrize("option", ["", "?ssl_ciphers=aNULL:%40SECLEVEL=0"])
def test_a_server_without_a_certificate_never_gets_a_password(tmp_path: Path, option: str) -> None:
    # given somebody who speaks TLS, has no certificate, and writes down what he is sent
    port = free_port()
    heard = tmp_path / "heard"
    command = ("openssl", "s_server", "-nocert", "-cipher", "aNULL:@SECLEVEL=0", "-tls1_2")
    with heard.open("wb") as output:
        somebody = subprocess.Popen(
            [*command, "-accept", f"127.0.0.1:{port}"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=tie_to_us,
        )
    eventually(lambda: b"ACCEPT" in heard.read_bytes())

    # when
    with pytest.raises((RedisDenied, RedisUnreachable)) as refused:
        ping(f"rediss://user:hunter2@127.0.0.1:{port}/0{option}")
    somebody.kill()
    somebody.communicate(timeout=10)

    # then
    assert isinstance(refused.value, RedisDenied)
    assert b"hunter2" not in heard.read_bytes()


def test_an_older_tls_is_refused(certificates: Certificates) -> None:
    # given a server that speaks no newer TLS than 1.1 (a library may no longer have it at all)
    options = ("--tls-auth-clients", "no", "--tls-protocols", "TLSv1.1")
    with (
        TlsServer(certificates, *options, "--tls-ciphers", "ALL:@SECLEVEL=0") as old,
        pytest.raises(RedisDenied, match="no TLS agreement"),
    ):
        ping(old.url())


def test_a_file_that_holds_no_certificate_is_final(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("no certificate\n")
    with pytest.raises(RedisDenied):
        ping(place.url(ca=file))


# What is not TLS's fault is not blamed on it.


def test_nobody_there_is_nobody_there() -> None:
    for scheme in ("redis", "rediss"):
        with pytest.raises(RedisUnreachable, match="Connection refused"):
            ping(f"{scheme}://localhost:{free_port()}/0")


@pytest.mark.parametrize("encrypted", [True, False], ids=["tls", "clear"])
def test_a_listener_that_hangs_up_on_everyone_may_come_to_itself(encrypted: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        options = {"host": "127.0.0.1", "port": listening.getsockname()[1]}

        # given
        def hang_up() -> None:
            while True:
                try:
                    listening.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()

        # then
        assert tls.diagnosis(options, encrypted) is None
        scheme = "rediss" if encrypted else "redis"
        with pytest.raises(RedisUnreachable):
            ping(f"{scheme}://127.0.0.1:{options['port']}/0")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_connection_that_once_worked_and_breaks_is_not_examined(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an address that has answered
    own = TlsServer(certificates, "--tls-auth-clients", "no")
    with own as there:
        url = there.url()
        client = connect(url, "test")
        with translated(client):
            client.ping()
        examined: list[str] = []
        monkeypatch.setattr(tls, "diagnosis", lambda *_: examined.append("once"))

        # when its server is killed
        own.kill()

        # then it is away, no more
        for _ in range(3):
            with pytest.raises(RedisUnreachable), translated(client):
                client.ping()
        assert examined == []
        client.close()


# In words.


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("redis://localhost:6379/0", "redis-cli"),
        ("redis://alice:hush@host:7000/2", "redis-cli -h host -p 7000 -n 2 --user alice --askpass"),
        ("rediss://localhost/0", "redis-cli --tls"),
        (
            "rediss://alice@host:1/0?ssl_ca_certs=/a/ca.crt",
            "redis-cli -h host -p 1 --tls --cacert /a/ca.crt --user alice",
        ),
        (
            "rediss://h/0?ssl_keyfile=/a%20b/k&ssl_certfile=/a%20b/c&ssl_ca_certs=/ca",
            "redis-cli -h h --tls --cacert /ca --cert '/a b/c' --key '/a b/k'",
        ),
        ("redis://$(touch%20x);y/0", "redis-cli -h '$(touch x);y'"),
        ("redis://h/0?username=bob&password=hush", "redis-cli -h h --user bob --askpass"),
        ("unix:///run/redis.sock?db=0", "redis-cli -s /run/redis.sock"),
        ("unix://bob:hush@/run/redis.sock", "redis-cli -s /run/redis.sock --user bob --askpass"),
    ],
)
def test_redis_cli_is_pointed_at_the_same_server(url: str, command: str) -> None:
    assert cli_command(url) == command
    assert "--user" not in cli_command(url, login=False)


def test_a_server_reached_by_a_certificate_of_our_own_is_no_open_server(
    strict: Place, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    url = strict.url(**mutual(certificates))
    client = connect(url, "test")
    assert check_server(client, url).maxmemory_bytes == 200 * 1024**2
    assert caplog.text == ""
    client.close()
