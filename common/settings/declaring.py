"""How a setting is declared, named, checked and described: the grammar of `common.run.config`."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from impala_redis.common.errors import ConfigError
from impala_redis.common.settings.env_id import names_a_part

# The most environments that one block may hold.
MAX_ENVS = 4096
# The most processes in which an actor steps its environments.
MAX_PROCESSES = 1024
# The most observations that a network sees at once.
MAX_FRAME_STACK = 16
# The longest text and the longest list that a run's spec carries.
MAX_TEXT, MAX_ITEMS = 256, 64
# The longest name of a number of an episode's last info, and the most of them in one block.
MAX_NAME, MAX_INFOS = 64, 32
# The largest number with a fraction: what is computed with it must still be finite in float32.
LARGEST = 1e30


def is_name(value: object, longest: int = MAX_NAME) -> bool:
    """Whether it is a text of 1 to `longest` printable characters, the first and last no spaces."""
    return (
        isinstance(value, str)
        and 1 <= len(value) <= longest
        and value.isprintable()
        and value == value.strip()
    )


def setting(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] = (),
    or_named: bool = False,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    longest: int = MAX_TEXT,
    parse: Callable[[Any], Any] | None = None,
    form: str = "",
    in_file: bool = False,
    repeatable: bool = False,
    mutable: bool = False,
) -> Any:
    """Declares one setting: its default, its help (with the unit), and its range.

    `choices` are the texts that are allowed where the annotation is no Literal of them; with
    `or_named` so is module:Name, a part of the user's own. A text has at most so many characters as
    `longest` says. What is written in a `form` of its own has a function to `parse` it, which
    returns the value and raises ValueError or ConfigError with a sentence; `in_file` its option may
    also name a TOML file that holds it. A list's option may be repeatable. A mutable number may
    change while a run goes on (`common.settings.evolving`).
    """
    declared = {"help": help, "choices": tuple(choices), "longest": longest, "in_file": in_file}
    declared |= {"or_named": or_named, "parse": parse, "form": form}
    bounds = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    declared |= {"repeatable": repeatable, "mutable": mutable}
    return field(default=default, metadata={**declared, **bounds})


@dataclass(frozen=True)
class Setting:
    """One setting as the options, the TOML reader and the docs see it."""

    key: str  # without the trailing underscore of a Python keyword
    attribute: str
    group: str
    kind: type  # bool, int, float, str, or tuple for a list
    item_kind: type  # of a list: int, or str for names
    optional: bool  # None ("none") turns it off
    default: Any
    help: str
    choices: tuple[str, ...]  # empty if other texts are allowed, too
    or_named: bool  # beside the choices, module:Name of the user's own is allowed
    longest: int  # of a text, in characters
    parse: Callable[[Any], Any] | None  # of a value that has a form of its own
    form: str  # what that form is, in words
    in_file: bool  # its option may name a TOML file that holds it
    repeatable: bool  # its option may be given several times, an item each
    mutable: bool  # a population may change it while a run goes on
    at_least: float | None
    at_most: float | None
    above: float | None
    below: float | None

    def check(self, value: Any) -> Any:
        """`value` in this setting's type. Raises ConfigError with key, range and what was found."""
        if self.optional and (value is None or value == "none"):
            return None
        if self.parse is not None:
            try:
                return self.parse(value)
            except ValueError as error:
                raise ConfigError(f"{self.key} is {repr(value)[:80]}: {error}") from error
        if self.kind is tuple:
            if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
                raise self._refusal(value)
            check = self._check_name if self.item_kind is str else self._check_count
            return tuple(check(item) for item in value)
        if self.kind is bool:
            if not isinstance(value, bool):
                raise self._refusal(value)
            return value
        if self.kind is str:
            if not isinstance(value, str) or len(value) > self.longest or not self._knows(value):
                raise self._refusal(value)
            return value
        return self._check_number(self.kind, value)

    @property
    def _longest_item(self) -> int:
        """The longest item of a list of names: one that is given by itself may be a path."""
        return MAX_TEXT if self.repeatable else MAX_NAME

    def _knows(self, text: str) -> bool:
        named = self.or_named and names_a_part(text)
        return not self.choices or text in self.choices or named

    def _refusal(self, value: Any) -> ConfigError:
        one_of = "one of " if self.choices else ""
        near = difflib.get_close_matches(str(value)[:80], self.choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return ConfigError(
            f"{self.key} must be {one_of}{self.range()}, not {repr(value)[:80]}{hint}"
        )

    def _check_count(self, value: Any) -> Any:
        return self._check_number(int, value)

    def _check_name(self, value: Any) -> Any:
        if not is_name(value, self._longest_item) or "," in value:
            raise self._refusal(value)
        return value

    def _check_number(self, kind: type, value: Any) -> Any:
        integral = isinstance(value, int) and not isinstance(value, bool)
        if not integral and not (kind is float and isinstance(value, float)):
            raise self._refusal(value)
        try:
            number = kind(value)
        except OverflowError:
            raise self._refusal(value) from None
        inside = (
            abs(number) < float("inf")
            and (self.at_least is None or number >= self.at_least)
            and (self.at_most is None or number <= self.at_most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )
        if not inside:
            raise self._refusal(value)
        if kind is float and abs(number) > LARGEST:
            raise ConfigError(f"{self.key} must be at most {LARGEST:g}, not {value!r}")
        return number

    def range(self) -> str:
        """What is allowed, in words: "a number, at least 0, or none"."""
        if self.choices:
            own = ("or module:Name of your own",) if self.or_named else ()
            return ", ".join((*self.choices, *own))
        if self.form:
            return self.form
        if self.kind is bool:
            return "true or false"
        name = {int: "a whole number", float: "a number", tuple: "whole numbers", str: "text"}
        if self.item_kind is str:
            return f"names of 1 to {self._longest_item} printable characters, without commas"
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (
                ("at least", self.at_least),
                ("above", self.above),
                ("at most", self.at_most),
                ("below", self.below),
            )
            if bound is not None
        ]
        return ", ".join([name[self.kind], *bounds, *(["or none"] if self.optional else [])])


def declared_in(config_class: type) -> Iterator[Setting]:
    """Every setting of a dataclass of dataclasses, in declaration order."""
    for group in dataclasses.fields(config_class):
        group_class: Any = type(group.default)
        hints = typing.get_type_hints(group_class)
        for item in dataclasses.fields(group_class):
            hint, optional = hints[item.name], False
            if typing.get_origin(hint) is types.UnionType:
                hint, optional = typing.get_args(hint)[0], True
            declared = dict(item.metadata)
            if typing.get_origin(hint) is Literal:
                hint, declared["choices"] = str, typing.get_args(hint)
            yield Setting(
                key=item.name.rstrip("_"),
                attribute=item.name,
                group=group.name,
                kind=typing.get_origin(hint) or hint,
                item_kind=(*typing.get_args(hint), int)[0],
                optional=optional,
                default=item.default,
                **declared,
            )
