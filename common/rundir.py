"""The run directory: its files, and the rule that a run is never overwritten."""

import json
import tomllib
from pathlib import Path
from typing import Any

from common.checkpoint import write_atomically
from common.config import Config, read_toml
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

    def write_config(self, name: str, preset: str | None, config: Config) -> None:
        """Writes config.toml: the run's name and preset, and every setting as resolved."""
        head = f'[run]\nname = "{name}"\n' + (f'preset = "{preset}"\n' if preset else "")
        write_atomically(self.config, f"{head}\n{config.to_toml()}".encode())

    def read_config(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The run's identity (name, preset) and settings; both empty before there is a run."""
        if not self.config.exists():
            return {}, {}
        identity = tomllib.loads(self.config.read_text(encoding="utf-8")).get("run", {})
        return identity, read_toml(self.config)

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
