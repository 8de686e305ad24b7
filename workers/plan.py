"""Which run, in which directory, with which settings: what a user's words come to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import Config, preset, read_toml
from common.errors import ConfigError
from common.rundir import RunDirectory


@dataclass(frozen=True)
class Plan:
    """A run as it shall be: resolved, but nothing written yet."""

    run: str
    preset: str | None
    config: Config
    directory: RunDirectory


def make_plan(
    *,
    run: str | None,
    run_dir: Path | None,
    preset_name: str | None,
    config_file: Path | None,
    resume: bool,
    overrides: Mapping[str, Any],
    default_preset: str | None = None,
) -> Plan:
    """Defaults < preset < a resumed run's own settings < the config file < overrides.

    Raises ConfigError: unknown names and values, or nothing that says which environment.
    """
    file = read_toml(config_file) if config_file else {}
    named = Config().replace(file).replace(overrides).environment.env  # checks all of them, too
    env = named if "env" in file or "env" in overrides else None
    identity: dict[str, Any] = {}
    saved: dict[str, Any] = {}
    if resume:
        there = RunDirectory(run_dir or _default_directory(run, preset_name or default_preset, env))
        identity, saved = there.read_config()
    run = run or _text(identity.get("name"))
    preset_name = preset_name or _text(identity.get("preset"))
    if not (preset_name or env or saved):
        if default_preset is None:
            raise ConfigError("which environment? give --preset NAME or --env ID")
        preset_name = default_preset
    config = preset(preset_name) if preset_name else Config()
    config = config.replace(saved).replace(file).replace(overrides)
    name = run_name(run, preset_name, env)
    return Plan(name, preset_name, config, RunDirectory(run_dir or Path("runs") / name))


def _default_directory(run: str | None, preset_name: str | None, env: str | None) -> Path:
    return Path("runs") / run_name(run, None if env and not run else preset_name, env)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def run_name(run: str | None, preset_name: str | None = None, env: str | None = None) -> str:
    """The run's name: given, else the preset's, else made from the environment's id."""
    name = run or preset_name or re.sub(r"[^a-z0-9._-]+", "-", (env or "").lower()).strip("-")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ConfigError(
            f"{name!r} cannot name a run: give --run with 1 to 64 letters, digits, '.', '_' or '-'"
            if name
            else "which run? give --preset NAME, --env ID or --run NAME"
        )
    return name
