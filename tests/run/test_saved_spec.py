"""A spec in a file: earlier versions are read as what they meant, later ones refused by name."""

import json
from typing import Any

import pytest

from impala_redis.common.errors import SpecMismatch
from impala_redis.common.run import saved_spec, spec
from impala_redis.common.run.config import Config
from impala_redis.common.run.saved_spec import read_saved_spec
from impala_redis.common.run.spaces import ActionSpec, ObservationPart, ObservationSpec, discrete
from impala_redis.common.run.spec import WIRE_VERSION, RunSpec, make_spec

FILE = "runs/mine/checkpoints/checkpoint-000000000007.json"
PARTS = ObservationSpec(
    (24,),
    "uint8",
    parts=(
        ObservationPart("cells", (2, 3), "int8", (3,) * 6),
        ObservationPart("speed", (2,), "float64", start=8),
    ),
)
SPECS = {
    "one choice": make_spec("mine", Config(), ObservationSpec((4,), "float32"), discrete(3)),
    "parts and numbers": make_spec(
        "mine", Config(), PARTS, ActionSpec("continuous", (2,), bounded=True)
    ),
}


def saved(document: Any, **facts: Any) -> dict[str, Any]:
    """The facts of a checkpoint that holds this document as its spec."""
    return {"spec": json.dumps(document), "version": 3, **facts}


def refusal(facts: dict[str, Any]) -> str:
    with pytest.raises(SpecMismatch) as refused:
        read_saved_spec(facts, FILE)
    message = str(refused.value)
    assert message.startswith(FILE)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("run", SPECS.values(), ids=SPECS.keys())
def test_a_spec_of_today_is_read_as_it_was_saved(run: RunSpec) -> None:
    assert read_saved_spec({"spec": run.to_json()}, FILE) == run


@pytest.mark.parametrize("run", SPECS.values(), ids=SPECS.keys())
def test_a_spec_of_today_is_still_read_when_the_wire_has_changed_again(
    run: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given two versions that changed only messages
    text = run.to_json()
    for module in (spec, saved_spec):
        monkeypatch.setattr(module, "WIRE_VERSION", WIRE_VERSION + 2)

    # when
    found = read_saved_spec({"spec": text}, FILE)

    # then
    assert found == run
    assert not run.difference(found)


def test_fields_that_came_later_get_what_was_done_before_them() -> None:
    # given the spec as it was before there were bounds, stacks, memories and starts of parts
    run = SPECS["parts and numbers"]
    document = json.loads(run.to_json()) | {"wire_version": 3}
    for name in ("network", "lstm_size", "extra_inputs", "weights_dtype", "compression", "text"):
        del document[name]
    del document["action"]["bounded"], document["observation"]["frame_stack"]
    del document["observation"]["parts"][1]["num_values"]

    # when
    found = read_saved_spec(saved(document), FILE)

    # then
    assert (found.network, found.lstm_size, found.compression) == ("mlp", 0, "none")
    assert found.text == "onehot"
    assert found.action == ActionSpec("continuous", (2,), bounded=False)
    assert found.observation == PARTS


def test_bytes_were_divided_by_255_before_the_bounds_said_by_what() -> None:
    # given an array of bytes, and parts of which one is bytes and one is categories in bytes
    array = ObservationSpec((10,), "uint8", scale=(255,))
    parts = ObservationSpec(
        (24,),
        "uint8",
        parts=(
            ObservationPart("flags", (8,), "uint8", scale=(255,)),
            ObservationPart("cells", (8,), "uint8", (3,) * 8, start=8),
            ObservationPart("codes", (8,), "int8", start=16),
        ),
    )
    for observation in (array, parts, ObservationSpec((), "int64", 7)):
        run = make_spec("mine", Config(), observation, discrete(2))
        document = json.loads(run.to_json()) | {"wire_version": 3}
        for one in (document["observation"], *document["observation"]["parts"]):
            del one["scale"]

        # when / then
        assert read_saved_spec(saved(document), FILE) == run


@pytest.mark.parametrize("version", [1, 2])
def test_an_action_was_one_choice_before_wire_version_3(version: int) -> None:
    # given
    document = json.loads(SPECS["one choice"].to_json()) | {"wire_version": version}
    del document["action"]
    document["observation"] = {"shape": [4], "dtype": "float32", "num_values": None}

    # when
    found = read_saved_spec(saved(document | {"num_actions": 5}), FILE)

    # then
    assert found.action == discrete(5)
    assert found.observation == ObservationSpec((4,), "float32")


@pytest.mark.parametrize(
    ("made_by", "said"),
    [
        ("impala-redis 3.1", "was made by impala-redis 3.1 "),
        (None, "was made by another version of impala-redis "),
        ("a\x1b[31m\nb", "was made by a?[31m?b "),
    ],
)
def test_a_version_to_come_is_refused_by_file_and_version(made_by: Any, said: str) -> None:
    document = json.loads(SPECS["one choice"].to_json()) | {"wire_version": WIRE_VERSION + 1}
    message = refusal(saved(document | {"unheard_of": [1]}, made_by=made_by))
    assert f"{said}(wire version {WIRE_VERSION + 1}, this one reads 1 to " in message
    assert message.endswith("; install that version")


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"spec": None},
        {"spec": "{"},
        {"spec": "[" * 100_000},
        *map(saved, [None, [], 5, {}, {"wire_version": "3"}, {"wire_version": 0}]),
        *(saved({"wire_version": version}) for version in (1, 2, 3, True)),
        saved({"wire_version": 3, "observation": [], "action": 7}),
        saved({"wire_version": 3, "observation": {"parts": [1, {}]}, "action": {}}),
    ],
    ids=lambda facts: str(facts)[:60],
)
def test_a_damaged_spec_is_refused_in_a_sentence_that_names_the_file(facts: Any) -> None:
    assert "spec" in refusal(facts)


def test_a_field_that_no_version_has_had_is_refused() -> None:
    document = json.loads(SPECS["one choice"].to_json()) | {"unheard_of": 1}
    assert "unheard_of" in refusal(saved(document))
