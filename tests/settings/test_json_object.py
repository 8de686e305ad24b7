"""Arguments as one text: JSON objects and key=value pairs, in one form."""

import json
from typing import Any

import pytest

from impala_redis.common.settings.json_object import EMPTY, MAX_OBJECT, arguments, canonical


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("", {}),
        ("{}", {}),
        ({"b": 1, "a": [1.5, None, True]}, {"a": [1.5, None, True], "b": 1}),
        (' {"size": 8, "map": "4x4"} ', {"size": 8, "map": "4x4"}),
        ("size=8,map=4x4", {"size": 8, "map": "4x4"}),
        ("rate = 1e-3, slippery=False,name=None,on=true", None),
        ("text=a=b", {"text": "a=b"}),
        ('text="8"', {"text": "8"}),
    ],
)
def test_arguments_are_values_in_whatever_form_they_are_written(
    written: Any, found: dict[str, Any] | None
) -> None:
    if found is None:
        found = {"rate": 0.001, "slippery": False, "name": None, "on": True}
    assert arguments(canonical(written)) == found


def test_equal_arguments_are_one_text() -> None:
    # given
    texts = {canonical(one) for one in ("b=1,a=x", '{"a": "x", "b": 1}', {"b": 1, "a": "x"})}

    # then
    assert texts == {'{"a": "x", "b": 1}'}
    assert {canonical(text) for text in texts} == texts
    assert canonical({}) == EMPTY


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("size", "it must be a JSON object"),
        ("size=8,,", "it must be a JSON object"),
        ("=8", "it must be a JSON object"),
        ("[1]", "it must be a JSON object"),
        ({1: 2}, "it must be a JSON object"),
        (8, "it must be a JSON object"),
        ('{"size": 8', "it is not JSON"),
        ('{"size": ' + 50_000 * "[", "it is not JSON"),
        ({"size": object()}, "no JSON value"),
        ({"size": float("nan")}, "no JSON value"),
        ("size=NaN", "no JSON value"),
        ({"text": MAX_OBJECT * "x"}, f"{MAX_OBJECT:,} at most"),
        (17 * MAX_OBJECT * "x", f"{MAX_OBJECT:,} at most"),
    ],
)
def test_what_is_no_object_of_values_is_refused_in_words(written: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        canonical(written)


def test_a_text_holds_values_and_never_code() -> None:
    found = arguments(canonical("value=__import__('os'),other=lambda: 1"))
    assert found == {"value": "__import__('os')", "other": "lambda: 1"}
    assert json.loads(canonical(found)) == found
