"""One option for every setting, made from the config's classes, and a --help in their groups."""

import functools
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from impala_redis.common.errors import ConfigError
from impala_redis.common.run.config import Config, settings
from impala_redis.common.run.config_file import read_value
from impala_redis.common.settings.declaring import Setting
from impala_redis.common.tasks.listing import as_text
from impala_redis.common.tasks.task import Task
from impala_redis.workers.command import Program
from impala_redis.workers.options import Function, option

# Two settings that say the same: one of them alone is given.
_WHAT_IS_PLAYED = {"env", "tasks"}


class SettingType(click.ParamType[Any]):
    """A setting's value as text: a number, a choice, "none", or whole numbers with commas."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        names = {int: "integer", float: "number", tuple: "integers", str: "text"}
        self.name = "names" if setting.item_kind is str else names[setting.kind]

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What --help shows in place of the value."""
        if self.setting.choices:
            own = ("module:Name",) if self.setting.or_named else ()
            return f"[{'|'.join((*self.setting.choices, *own))}]"
        if self.setting.in_file:
            return "FILE"
        if self.setting.parse is not None:
            return "JSON"
        return self.name.upper() + ("|none" if self.setting.optional else "")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The checked value ("none" stays a word: None means not given)."""
        try:
            parsed = self._parsed(value)
            checked = self.setting.check(parsed)
            return checked if self.setting.parse is not None else parsed
        except (ConfigError, ValueError) as error:
            self.fail(str(error) if isinstance(error, ConfigError) else self._refusal(value), param)

    def _parsed(self, text: Any) -> Any:
        if not isinstance(text, str) or (self.setting.optional and text == "none"):
            return text
        if self.setting.in_file and text.strip() and not text.lstrip().startswith("["):
            return read_value(Path(text), self.setting.key)
        if self.setting.parse is not None:
            return text or self.setting.default
        if self.setting.kind is tuple:
            parts = [part.strip() for part in text.split(",") if part.strip()]
            return parts if self.setting.item_kind is str else [int(part) for part in parts]
        if self.setting.kind is int:
            number = float(text)  # 5e6 is a way to write a count
            return int(text) if not number.is_integer() or abs(number) > 2**53 else int(number)
        return float(text) if self.setting.kind is float else text

    def _refusal(self, value: Any) -> str:
        return f"{self.setting.key} must be {self.setting.range()}, not {value!r}"


class GroupedCommand(Program):
    """A command whose --help shows the settings in the config's groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes first the program's own options, then a section for each group of settings."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        group_of = {f"setting_{s.key}": s.group for s in settings()}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                group = group_of.get(parameter.name or "", "")
                title = f"Settings: {group}" if group else "Options"
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def every_setting(function: Function) -> Function:
    """Adds an option for each setting; the given ones arrive as `overrides`, by key."""

    @functools.wraps(function)
    def with_overrides(**options: Any) -> Any:
        given = {s.key: options.pop(f"setting_{s.key}") for s in settings()}
        overrides = {key: value for key, value in given.items() if value not in (None, ())}
        overrides = _without_outranked(overrides)
        return function(**options, overrides=overrides | _joined(overrides))

    decorated: Function = with_overrides
    for setting in reversed(settings()):
        decorated = option(
            setting.key.replace("_", "-"),
            parameter=f"setting_{setting.key}",
            show_default=shown(setting.default) or "empty",
            help=setting.help,
            **_form(setting),
        )(decorated)
    return decorated


def _form(setting: Setting) -> dict[str, Any]:
    """How click reads a setting: a switch, a value, or several."""
    if setting.kind is bool:
        return {"off": f"no-{setting.key.replace('_', '-')}", "type": bool, "default": None}
    return {"type": SettingType(setting), "default": None, "multiple": setting.repeatable}


def _without_outranked(overrides: dict[str, Any]) -> dict[str, Any]:
    """The same without what a variable says is played, where that is typed in the other form."""
    typed = {key for key in _WHAT_IS_PLAYED & overrides.keys() if _is_typed(key)}
    outranked = _WHAT_IS_PLAYED - typed if typed else set()
    return {key: value for key, value in overrides.items() if key not in outranked}


def _is_typed(key: str) -> bool:
    source = click.get_current_context().get_parameter_source(f"setting_{key}")
    return source is ParameterSource.COMMANDLINE


def _joined(overrides: dict[str, Any]) -> dict[str, Any]:
    """The items of options that were given several times, as one list for each."""
    return {
        setting.key: [item for given in overrides[setting.key] for item in given]
        for setting in settings()
        if setting.repeatable and setting.key in overrides
    }


def as_arguments(config: Config) -> list[str]:
    """Every setting as command-line arguments, to hand a config to another program."""
    return [
        f"--{'' if value else 'no-'}{key.replace('_', '-')}"
        if isinstance(value, bool)
        else f"--{key.replace('_', '-')}={shown(value)}"
        for key, value in config.values().items()
    ]


def shown(value: Any) -> str:
    """A setting's value as one would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple) and value and isinstance(value[0], Task):
        return as_text(value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
