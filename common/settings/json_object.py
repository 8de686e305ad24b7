"""Arguments as values: one JSON object, or key=value pairs, kept as one text in one form.

Such a text is what the environment's and the network's own arguments are in config, spec and files.
It holds values alone, never code.
"""

import json
from typing import Any

EMPTY = "{}"
MAX_OBJECT = 4096  # characters
# What --help and refusals call it.
FORM = "a JSON object, or key=value,key=value"
# What else than JSON is understood in key=value: these words of Python.
_WORDS = {"True": True, "False": False, "None": None}


def canonical(value: object) -> str:
    """The one text of an object: JSON with sorted keys.

    Args:
      value: a dict, JSON of an object, or "key=value,key=value", where a value is a number, true,
        false or null, or else a text. An empty text is the object without keys. Lists, objects and
        texts with commas need the form of JSON.

    Raises ValueError with a sentence: it is none of these, or too long.
    """
    found = _parsed(value) if isinstance(value, str) else value
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError('it must be a JSON object such as {"size": 8}, or key=value,key=value')
    try:
        text = json.dumps(found, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it holds what is no JSON value: {str(error)[:100]}") from error
    if len(text) > MAX_OBJECT:
        raise ValueError(f"it takes {len(text):,} characters of JSON, and {MAX_OBJECT:,} at most")
    return text


def joined(text: str, over: str) -> str:
    """The one text of the arguments of two: those of the second take the place of the first's."""
    return canonical({**arguments(text), **arguments(over)})


def arguments(text: str) -> dict[str, Any]:
    """The arguments in such a text."""
    found: dict[str, Any] = json.loads(text)
    return found


def _parsed(text: str) -> Any:
    if len(text) > 16 * MAX_OBJECT:
        raise ValueError(f"it takes {len(text):,} characters, and {MAX_OBJECT:,} at most")
    if not text.strip():
        return {}
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON: {str(error)[:100]}") from error
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        return None
    return {key.strip(): _value(value.strip()) for key, _, value in pairs}


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
