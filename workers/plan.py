"""Resolves what a user asks for: which run, in which directory, with which settings."""

import itertools
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from impala_redis.common.errors import ConfigError, printable
from impala_redis.common.presets.table import PRESETS, preset
from impala_redis.common.records.rundir import RUNS, RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.run.config_file import read_toml
from impala_redis.common.settings.env_id import travelling
from impala_redis.common.user_code.modules import absolute

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A resolved run; nothing is written yet."""

    run: str
    preset: str | None
    config: Config
    directory: RunDirectory
    # Whether anything names the network: the user, a file, the preset or the run that is resumed.
    chose_network: bool = True
    # The run whose weights this one begins with, or has begun with: an absolute path, or its name.
    init_from: str | None = None


def make_plan(
    *,
    run: str | None,
    run_dir: Path | None,
    preset_name: str | None,
    config_file: Path | None,
    resume: bool,
    overrides: Mapping[str, Any],
    default_preset: str | None = None,
    init_from: str | None = None,
) -> Plan:
    """Resolves a run: defaults < preset < resumed run < config file < `overrides`.

    Raises ConfigError: a name or value is unknown, or nothing says which environment.
    """
    file = read_toml(config_file) if config_file else {}
    env = _named(file, overrides)
    fallback = None if preset_name or env else default_preset
    identity: dict[str, Any] = {}
    saved: dict[str, Any] = {}
    if resume:
        directory = _directory_to_resume(run_dir, run, preset_name or fallback, env)
        identity, saved = directory.read_config()
    run = run or _text_or_none(identity.get("name"))
    preset_name = preset_name or _text_or_none(identity.get("preset"))
    if not (preset_name or env or saved):
        if fallback is None:
            raise ConfigError("which environment? give --preset NAME or --env ID")
        preset_name = fallback
    chosen = (PRESETS.get(preset_name or "", {}), saved, file, overrides)
    config = preset(preset_name) if preset_name else Config()
    config = config.replace(saved, file, overrides)
    config = _with_absolute_paths(config)
    name = run_name(run, preset_name, env)
    if not resume:
        directory = RunDirectory(run_dir) if run_dir else _free_directory(name)
    chose_network = any("network" in one for one in chosen)
    began, init_from = _text_or_none(identity.get("init_from")), _from_any_folder(init_from)
    if resume and directory.holds_a_checkpoint:
        if init_from and init_from != began:
            log.warning(
                "--init-from %s is left out: %s goes on from its own checkpoint",
                *(printable(init_from), printable(directory.path)),
            )
        init_from = began
    return Plan(name, preset_name, config, directory, chose_network, init_from or began)


def _named(*layers: Mapping[str, Any]) -> str | None:
    """The environment's id; of several tasks the first one's, and how many more there are.

    None if nothing names one. Raises ConfigError: what is named can be none.
    """
    named = [{key: values[key] for key in ("env", "tasks") if key in values} for values in layers]
    if not any(named):
        return None
    environment = Config().replace(*named).environment
    env, tasks = environment.env, environment.tasks
    return f"{env}-and-{len(tasks) - 1}-more" if len(tasks) > 1 else env


def _with_absolute_paths(config: Config) -> Config:
    """The same from any folder: files of the user's own parts by their absolute paths."""
    environment = config.environment
    return config.replace(
        {
            "env": absolute(environment.env),
            "tasks": [replace(task, env=absolute(task.env)) for task in environment.tasks] or None,
            "network": absolute(config.model.network),
            "wrapper": tuple(map(absolute, environment.wrapper)),
        }
    )


def _directories(name: str) -> Iterator[RunDirectory]:
    """runs/NAME, runs/NAME-2, runs/NAME-3 and so on."""
    yield RunDirectory(RUNS / name)
    for number in itertools.count(2):
        yield RunDirectory(RUNS / f"{name}-{number}")


def _free_directory(name: str) -> RunDirectory:
    """The first directory without a run: no earlier run is ever overwritten."""
    return next(directory for directory in _directories(name) if not directory.holds_a_run)


def _directory_to_resume(
    run_dir: Path | None, run: str | None, preset_name: str | None, env: str | None
) -> RunDirectory:
    """The given directory, else the newest one of that run's name."""
    if run_dir:
        return RunDirectory(run_dir)
    name = run_name(run, preset_name, env)
    taken = list(itertools.takewhile(lambda d: d.holds_a_run, _directories(name)))
    return taken[-1] if taken else RunDirectory(RUNS / name)


def _from_any_folder(run: str | None) -> str | None:
    """A run as its user named it; its absolute path if that is one."""
    path = Path(run or "").expanduser()
    return str(path.absolute()) if run and path.exists() else run


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def run_name(run: str | None, preset_name: str | None = None, env: str | None = None) -> str:
    """The run's name: the given one, else the preset's, else one made from the environment's id.

    Raises ConfigError: it cannot name a run.
    """
    made = re.sub(r"[^a-z0-9._-]+", "-", travelling(env or "").lower()).strip("-")
    name = run or preset_name or made
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ConfigError(
            f"{name!r} cannot name a run: give --run with 1 to 64 letters, digits, '.', '_' or '-'"
            if name
            else "which run? give --preset NAME, --env ID or --run NAME"
        )
    return name


def run_to_join(run: str | None) -> str:
    """The given name of a run that exists already. Raises ConfigError: there is none."""
    if not run:
        raise ConfigError("which run? give --run NAME")
    return run_name(run)
