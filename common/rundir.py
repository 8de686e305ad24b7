"""The run directory: its files, and the rule that a run is never overwritten."""

import json
from pathlib import Path
from typing import Any

from common.checkpoint import write_atomically
from common.errors import RunDirectoryError


class RunDirectory:
    """Names of a run's files, and what may be done with them."""

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
        return any(self.checkpoints.glob("checkpoint-*"))

    def prepare(self, resume: bool) -> None:
        """Makes the directory. Raises RunDirectoryError: not writable, or in use and no resume."""
        if self.holds_a_run and not resume:
            raise RunDirectoryError(
                f"{self.path} already holds a run ({self._status()}); add --resume to continue it, "
                "or give another --run-dir"
            )
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise RunDirectoryError(
                f"the run directory {self.path} cannot be written ({error.strerror}); give another "
                "with --run-dir"
            ) from error

    def read_result(self) -> dict[str, Any] | None:
        """The result of the run, None while it has not ended."""
        try:
            result = json.loads(self.result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) else None

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes result.json, whole."""
        write_atomically(self.result, (json.dumps(result, indent=1) + "\n").encode())

    def _status(self) -> str:
        result = self.read_result()
        return str(result.get("status")) if result else "not ended"
