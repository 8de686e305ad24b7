"""A spec that says which part is the action mask is read back, and refused where it cannot be."""

import json
from typing import Any

import pytest

from impala_redis.common.errors import SpecMismatch
from impala_redis.common.run.spaces import ActionSpec
from impala_redis.common.run.spec import RunSpec
from masked import ONE_CHOICE, SEVERAL_CHOICES, masked
from small_networks import make_spec


def changed(**changes: Any) -> str:
    """A masked spec's JSON, in which these fields of the observation or the mask are others."""
    document = json.loads(make_spec(masked(), action=ONE_CHOICE).to_json())
    mask = document["observation"]["parts"][0]
    for name, value in changes.items():
        (mask if name in ("name", "shape", "dtype", "num_values") else document["observation"])[
            name
        ] = value
    return json.dumps(document)


@pytest.mark.parametrize("action", [ONE_CHOICE, SEVERAL_CHOICES], ids=["one", "several"])
def test_a_spec_with_a_mask_reads_back_as_it_was_written(action: ActionSpec) -> None:
    spec = make_spec(masked(3), action=action)
    assert RunSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": "numbers"},
        {"mask": None},
        {"mask": ["action_mask"]},
        {"name": "other"},
        {"shape": [4]},
        {"shape": [5, 1]},
        {"dtype": "int8"},
        {"num_values": [2] * 5},
    ],
    ids=str,
)
def test_a_spec_whose_mask_cannot_be_one_is_refused(changes: dict[str, Any]) -> None:
    assert RunSpec.from_json(changed()).observation.mask == "action_mask"
    with pytest.raises(SpecMismatch, match="mask"):
        RunSpec.from_json(changed(**changes))


def test_numbers_as_actions_have_no_mask() -> None:
    spec = make_spec(masked(), action=ActionSpec("continuous", (5,)))
    with pytest.raises(SpecMismatch, match="action mask of 5 numbers, and an action is 5 numbers"):
        RunSpec.from_json(spec.to_json())


def test_a_mask_changes_the_fingerprint_and_an_older_run_has_none() -> None:
    # given a run whose part of that name is like any other
    new = make_spec(masked(), action=ONE_CHOICE, mask_from="observation")
    old = RunSpec.from_json(changed(mask=""))

    # then
    assert old.fingerprint != new.fingerprint
    assert old.observation.num_features == new.observation.num_features + 5
    assert old.variant.mask_from == ""
    assert new.variant.mask_from == "observation"
