"""A server with the very files of docker/: only port, folder, run and passwords are put in."""

import contextlib
import hashlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import redis

from chaos.servers import free_port
from impala_redis.common.local import children
from support import ROOT, eventually

CONF = ROOT / "docker" / "redis.conf"
ACL = ROOT / "docker" / "users.acl"
FUNCTIONS = ROOT / "common" / "transport" / "functions.lua"
USERS = ("strict-actor", "actor", "learner", "monitor", "admin")


class HardenedServer:
    """A server whose users are those of users.acl, for one run; leaving the `with` ends it."""

    def __init__(self, directory: Path, binary: Path, run: str) -> None:
        self.directory, self._binary, self.run = directory, binary, run
        self.port = free_port()
        self.acl = directory / "users.acl"
        self.acl.write_text(self._users(ACL.read_text()))
        for user in USERS:
            self.password_file(user).write_text(self.password(user) + "\n")
            self.password_file(user).chmod(0o600)
        self.start()

    def password(self, user: str) -> str:
        """The user's password; it has characters that an address must not hold as they are."""
        return f"secret/of @{user}:%41#"

    def password_file(self, user: str) -> Path:
        """Where the user's password lies."""
        return self.directory / f"{user}.password"

    def url(self, user: str) -> str:
        """The server's address for that user, without the password."""
        return f"redis://{user}@127.0.0.1:{self.port}/0"

    def login(self, user: str) -> dict[str, str]:
        """The environment of a program that is that user."""
        return {
            "IMPALA_REDIS_URL": self.url(user),
            "IMPALA_REDIS_PASSWORD_FILE": str(self.password_file(user)),
        }

    def client(self, user: str) -> redis.Redis:
        """A plain client with that user's credentials."""
        return redis.Redis(
            port=self.port,
            username=user,
            password=self.password(user),
            socket_timeout=10,
            driver_info=None,
        )

    def load_functions(self) -> None:
        """As the admin, before the first run."""
        with self.client("admin") as admin:
            admin.function_load(FUNCTIONS.read_text(), replace=True)

    def refusals(self) -> list[dict[str, str]]:
        """What ACL LOG holds."""
        with self.client("admin") as admin:
            entries = admin.execute_command("ACL LOG")
        texts = [{_text(name): _text(value) for name, value in _pairs(entry)} for entry in entries]
        return texts

    def start(self) -> None:
        """Starts it; returns when it answers."""
        self._process = children.spawn(
            [
                *(self._binary, CONF, "--port", str(self.port), "--dir", self.directory),
                *("--aclfile", self.acl),
            ],
            log_file=self.directory / "hardened-server.log",
            death_signal=signal.SIGKILL,
        )
        eventually(self._answers, what="the server with docker/redis.conf to answer")

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Ends it in order, and starts it again afterwards."""
        self._end()
        yield
        self.start()

    def __enter__(self) -> "HardenedServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        children.end(self._process, grace_s=10.0)

    def _users(self, text: str) -> str:
        """users.acl with the run's name and the hashes of our passwords."""
        lines = []
        for line in text.replace("{RUN}", "{" + self.run + "}").splitlines():
            user = line.split()[1]
            digest = hashlib.sha256(self.password(user).encode()).hexdigest()
            lines.append(re.sub("#0{64}", "#" + digest, line))
        return "\n".join(lines) + "\n"

    def _answers(self) -> bool:
        log = self.directory / "hardened-server.log"
        assert self._process.poll() is None, log.read_text()
        try:
            with self.client("admin") as admin:
                return bool(admin.ping())
        except redis.ConnectionError as error:
            assert not isinstance(error, redis.AuthenticationError)
            return False


def _pairs(entry: object) -> list[tuple[object, object]]:
    if isinstance(entry, dict):
        return list(entry.items())
    assert isinstance(entry, list)
    return list(zip(entry[::2], entry[1::2], strict=True))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
