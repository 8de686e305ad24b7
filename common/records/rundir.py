"""The run directory: its files, and the rule that a run is never overwritten."""

import contextlib
import fcntl
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from impala_redis.common.errors import ConfigError, RunDirectoryError, RunUnreadable, printable
from impala_redis.common.files import (
    make_folder,
    open_for_its_owner,
    read_whole,
    refuse_link,
    remove_leftovers,
    write_atomically,
)
from impala_redis.common.run.config import Config
from impala_redis.common.run.config_file import (
    read_document_found,
    settings_in,
    to_toml,
    toml_value,
)
from impala_redis.common.run.saved_spec import MADE_BY, maker

log = logging.getLogger(__name__)

# The format of config.toml, in its table [run]; a file without a number is of the first format. It
# must be raised when a setting changes its meaning, since an older version would misread the file;
# not when a setting is added, since a version that does not know it refuses the file by its name.
FORMAT = 1

# A result takes one KB.
MOST_RESULT_BYTES = 1_048_576

# Where runs go, each in a directory of its name.
RUNS = Path("runs")

# Folders of a run directory, which are taken for it now and then.
FOLDERS = ("checkpoints", "logs")


@contextlib.contextmanager
def written_to(directory: Path) -> Iterator[None]:
    """Turns an OSError of what is written there into RunDirectoryError, with the remedy."""
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(
            f"the run directory {printable(directory)} cannot be written ({error.strerror}); make "
            "room, or give another with --run-dir"
        ) from error


class RunDirectory:
    """The names of a run's files, and the rules for reading and writing them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.result = path / "result.json"

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was started here before."""
        files = (self.config, self.metrics, self.result)
        return any(path.exists() for path in files) or self.holds_a_checkpoint

    @property
    def holds_a_checkpoint(self) -> bool:
        """Whether one was ever written here, usable or not."""
        return any(self.checkpoints.glob("checkpoint-*.json"))

    def write_config(
        self, name: str, preset: str | None, config: Config, init_from: str | None = None
    ) -> None:
        """Writes config.toml: the run's name and preset, and every setting as resolved.

        `init_from` is the run whose weights it began with: an absolute path, or NAME for runs/NAME.
        """
        head = f'[run]\nformat = {FORMAT}\nname = "{name}"\nmade_by = "{MADE_BY}"\n'
        head += f'preset = "{preset}"\n' if preset else ""
        head += f"init_from = {toml_value(init_from)}\n" if init_from else ""
        write_atomically(self.config, f"{head}\n{to_toml(config)}".encode())

    def read_config(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The run's identity (name, preset) and settings; both empty before there is a run.

        Raises RunUnreadable when a newer version wrote them in another format, ConfigError when
        they are damaged or name a setting that this version does not know.
        """
        if not self.config.exists():
            return {}, {}
        document = read_document_found(self.config)
        table = document.get("run")
        identity = table if isinstance(table, dict) else {}
        made_by = f" ({maker(identity)})" if "made_by" in identity else ""
        found = identity.get("format", FORMAT)
        if type(found) is not int or found > FORMAT:
            raise RunUnreadable(
                f"{printable(self.config)} was written by a newer version of impala-redis (format "
                f"{ascii(found)[:80]}, this one reads {FORMAT}); install that version{made_by}"
            )
        try:
            return identity, settings_in(document)
        except ConfigError as error:
            raise ConfigError(
                f"{printable(self.config)}: {error}; or it is of a newer version of impala-redis: "
                f"then install that one{made_by}"
            ) from error

    def prepare(self, program: str, resume: bool) -> None:
        """Makes the directory, and keeps it for this program as long as the process lives.

        Where the file system knows no locks, a warning says so, and nothing keeps the directory.
        Raises RunDirectoryError: not writable, in use, or with a run in it and no `resume`.
        """
        name, place = printable(self.path), self.path.resolve()
        if place.name in FOLDERS and RunDirectory(place.parent).holds_a_run:
            raise RunDirectoryError(
                f"{name} is a folder of the run in {printable(place.parent)}; give that one with "
                "--run-dir"
            )
        try:
            if self.holds_a_run and not resume:
                raise RunDirectoryError(
                    f"{name} already holds a run ({printable(self._status())}); add --resume to "
                    "continue it, or give another --run-dir"
                )
            make_folder(self.checkpoints)
            for folder in FOLDERS:
                refuse_link(self.path / folder)
            lock = open_for_its_owner(self.path / f".{program}.lock")
        except OSError as error:
            raise RunDirectoryError(
                f"the run directory {name} cannot be written ({error.strerror}); give another "
                "with --run-dir"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the process ends
        except BlockingIOError:
            raise RunDirectoryError(
                f"another {program} works in {name} now; wait for its end, or give another "
                "--run-dir"
            ) from None
        except OSError as error:  # Lustre and some NFS: each has an error number of its own
            log.warning(
                "the file system of %s knows no locks (%s): only the lease in Redis keeps two "
                "learners of a run apart, so start no second %s in this directory",
                *(name, error.strerror or error, program),
            )

    def read_result(self) -> dict[str, Any] | None:
        """The result of the run, None as long as it has not ended, or if it is damaged.

        Raises OSError: it is there, and cannot be read.
        """
        try:
            result = json.loads(read_whole(self.result, MOST_RESULT_BYTES).decode())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return result if isinstance(result, dict) else None

    def remove_leftovers(self) -> None:
        """Removes what a kill has left unfinished beside the run's files. Raises OSError."""
        for file in (self.config, self.metrics, self.result):
            remove_leftovers(self.path, file.name)

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes result.json, whole."""
        write_atomically(self.result, (json.dumps(result, indent=1) + "\n").encode())

    def _status(self) -> str:
        result = self.read_result()
        return str(result.get("status")) if result else "not ended"


def way_to_a_run(path: Path) -> str:
    """What to name instead of a file or directory that is no run directory, as half a sentence."""
    with contextlib.suppress(OSError):  # what we may not look at is not named
        for above in path.resolve().parents[:2]:
            if RunDirectory(above).holds_a_run:
                here = Path.cwd()
                name = above.relative_to(here) if above.is_relative_to(here) else above
                return f"name the run directory {printable(name)}"
        inside = sorted(path.iterdir()) if path.is_dir() else []
        runs = [p for p in inside if p.is_dir() and RunDirectory(p).holds_a_run]
        if runs:
            return f"name one in it: {printable(', '.join(map(str, runs[:5])))}"
    return "name a directory that holds a run"
