"""The run's spec: read back as written, and refused in one way whatever else it is."""

import dataclasses
import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_redis.common.errors import ConfigError, SpecMismatch
from impala_redis.common.presets.table import PRESETS, preset
from impala_redis.common.run.config import Config
from impala_redis.common.run.limits import check_size
from impala_redis.common.run.own_network import OwnNetwork
from impala_redis.common.run.spaces import (
    MAX_OBSERVATION_SIZE,
    ActionSpec,
    ObservationPart,
    ObservationSpec,
    discrete,
)
from impala_redis.common.run.spec import WIRE_VERSION, RunSpec, make_spec
from impala_redis.common.tasks.task import Task

quick = settings(max_examples=200, deadline=None, derandomize=True)

SPEC = make_spec("cartpole", Config(), ObservationSpec((4,), "float32"), discrete(2))
INDEX = dataclasses.replace(SPEC, observation=ObservationSpec((), "int64", 16), hidden_sizes=())
FIELDS = [field.name for field in dataclasses.fields(RunSpec)]
PARTS = [field.name for field in dataclasses.fields(ObservationSpec)]


def document(**changes: Any) -> dict[str, Any]:
    """SPEC as JSON data, with some fields changed."""
    return json.loads(SPEC.to_json()) | changes


def with_observation(**changes: Any) -> dict[str, Any]:
    return document(observation=document()["observation"] | changes)


def refusal(text: str | bytes) -> str:
    """The message of the SpecMismatch that `text` must give."""
    with pytest.raises(SpecMismatch) as caught:
        RunSpec.from_json(text)
    return str(caught.value)


@pytest.mark.parametrize("spec", [SPEC, INDEX], ids=["box", "index"])
def test_a_spec_reads_back_as_it_was_written(spec: RunSpec) -> None:
    # when
    text = spec.to_json()

    # then
    assert RunSpec.from_json(text) == spec
    assert RunSpec.from_json(text.encode()) == spec
    assert RunSpec.from_json(text).fingerprint == spec.fingerprint
    assert "\n" not in text


def test_a_spec_takes_its_figures_from_the_config() -> None:
    # given
    config = Config().replace(
        {
            "env": "Acrobot-v1",
            "hidden_sizes": [8],
            "activation": "relu",
            "unroll_length": 5,
            "envs_per_actor": 3,
            "queue_blocks": 2,
            "max_policy_age_s": 9.0,
            "seed": 7,
            "weights_dtype": "bfloat16",
        }
    )

    # when
    spec = make_spec("mine", config, ObservationSpec((6,), "float32"), discrete(3))

    # then
    assert spec == RunSpec(
        run="mine",
        env="Acrobot-v1",
        observation=ObservationSpec((6,), "float32"),
        action=discrete(3),
        hidden_sizes=(8,),
        activation="relu",
        unroll_length=5,
        envs_per_actor=3,
        queue_blocks=2,
        max_policy_age_s=9.0,
        seed=7,
        weights_dtype="bfloat16",
        wire_version=WIRE_VERSION,
    )


FITTING: dict[str, list[Any]] = {
    "env": ["CartPole-v0"],
    "env_kwargs": ['{"size": 8}'],
    "wrapper": [("my_module:Slower",)],
    "max_episode_steps": [9],
    "mask_from": ["info"],
    "observation": [
        ObservationSpec((5,), "float32"),
        ObservationSpec((2, 2), "float32"),
        ObservationSpec((4,), "float64"),
        ObservationSpec((), "int64", 4),
        ObservationSpec((), "int64", 5),
        ObservationSpec((8,), "uint8", parts=(ObservationPart("a", (2,), "float32"),)),
        ObservationSpec((8,), "uint8", parts=(ObservationPart("b", (2,), "float32"),)),
        ObservationSpec((4,), "float32", frame_stack=4),
        ObservationSpec((4,), "float32", scale=(255,)),
        ObservationSpec((4,), "float32", scale=(1, 1, 1, 2)),
    ],
    "action": [
        discrete(3),
        ActionSpec("multi_discrete", (2,)),
        ActionSpec("multi_discrete", (2, 3)),
        ActionSpec("continuous", (2,)),
        ActionSpec("continuous", (2,), bounded=True),
    ],
    "network": ["shallow", "nature", "deep"],
    "lstm_size": [1, 256],
    "extra_inputs": ["last_action_reward"],
    "normalize_observations": [True],
    "num_tasks": [2],
    "text": ["bag", "lstm"],
    "network_config": ['{"width": 8}'],
    "own": [OwnNetwork(features_dim=3), OwnNetwork(features_dim=4, memory_size=2)],
    "hidden_sizes": [(), (64,), (64, 65)],
    "activation": ["relu"],
    "unroll_length": [21],
    "weights_dtype": ["bfloat16"],
    "wire_version": [WIRE_VERSION + 1],
}
# Of a task some things fit, and others are free.
TASKS = (Task("near", "Near-v0"), Task("far", "Far-v0", env_kwargs='{"size": 9}'))
FREE: dict[str, Any] = {
    "run": "another",
    "env_processes": 2,
    "spaces": "{}",
    "envs_per_actor": 7,
    "queue_blocks": 9,
    "start_frames": 9,
    "resumes": 2,
    "max_policy_age_s": 1.0,
    "seed": 5,
    "compression": "zstd",
    "info_keys": ("success",),
    "queue_policy": "block",
    "popart": True,
}


def test_every_field_is_said_to_fit_or_to_be_free() -> None:
    assert sorted([*FITTING, *FREE, "tasks"]) == sorted(FIELDS)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": "nearer"}, "task 1 is near in Near-v0 here and nearer in Near-v0 there"),
        ({"env": "My-v0"}, "task 1 is near in Near-v0 here and near in My-v0 there"),
        (
            {"env_kwargs": '{"size": 8}'},
            'task 1 is near in Near-v0 here and near in Near-v0 with {"size": 8} there',
        ),
    ],
)
def test_what_a_task_is_fits_and_is_told_in_words(changed: dict[str, str], words: str) -> None:
    # given
    first, second = TASKS
    mine = dataclasses.replace(SPEC, tasks=TASKS, num_tasks=2)

    # when
    other = dataclasses.replace(mine, tasks=(dataclasses.replace(first, **changed), second))

    # then
    assert mine.fingerprint != other.fingerprint
    assert mine.difference(other) == words


def test_tasks_that_no_actor_could_read_are_refused_with_the_remedy() -> None:
    # given those and an observation that take nearly as much room as they may
    names = [f"far-{number}" for number in range(128)]
    tasks = [{"name": name, "env": "A-v0", "env_kwargs": {"a": "x" * 170}} for name in names]
    config = Config().replace({"tasks": tasks, "hidden_sizes": []})
    categories = ObservationPart("a", (4096,), "uint8", (100,) * 4096)
    numbers = ObservationPart("b", (800,), "float32", start=4096, scale=(2**60,) * 800)
    wide = ObservationSpec((4096 + 4 * 800,), "uint8", parts=(categories, numbers))

    # then
    with pytest.raises(ConfigError, match=r"128 tasks the run's spec takes .* less env_kwargs"):
        make_spec("run", config, wide, discrete(2))


def test_the_order_of_tasks_and_their_number_fit() -> None:
    # given
    mine = dataclasses.replace(SPEC, tasks=TASKS, num_tasks=2)

    # when
    turned = dataclasses.replace(mine, tasks=TASKS[::-1])
    fewer = dataclasses.replace(mine, tasks=TASKS[:1], num_tasks=1)

    # then
    assert len({one.fingerprint for one in (mine, turned, fewer, SPEC)}) == 4
    assert mine.difference(fewer) == (
        'num_tasks is 2 here and 1 there; task 2 is far in Far-v0 with {"size": 9} here and none '
        "there"
    )


def test_shares_and_scores_of_tasks_may_differ() -> None:
    # given
    mine = dataclasses.replace(SPEC, tasks=TASKS, num_tasks=2)

    # when
    other = Task("near", "Near-v0", share=3, random=-1.0, reference=7.0, reward_scale=0.1)
    other_spec = dataclasses.replace(mine, tasks=(other, TASKS[1]))

    # then
    assert other_spec.fingerprint == mine.fingerprint
    assert mine.difference(other_spec) == ""


def test_arguments_of_the_run_and_of_a_task_that_are_too_long_together_are_refused() -> None:
    # given
    of_run, of_task = (json.dumps({name: "x" * 3000}) for name in "ab")
    task = {"name": "far", "env": "CartPole-v1", "env_kwargs": of_task}

    # then neither a learner takes them nor an actor
    words = "env_kwargs of the run and of the task far do not fit together"
    with pytest.raises(ConfigError, match=words):
        Config().replace({"tasks": [task], "env_kwargs": of_run})
    assert words in refusal(json.dumps(document(tasks=[task], env_kwargs=of_run)))


def test_tasks_that_do_not_fit_the_rest_of_a_spec_are_refused() -> None:
    # given
    tasks = [{"name": "a", "env": "CartPole-v1"}, {"name": "b", "env": "B-v0"}]
    assert RunSpec.from_json(json.dumps(document(tasks=tasks, num_tasks=2))).tasks[1].name == "b"

    # then
    for wrong in ({"num_tasks": 3}, {"num_tasks": 1}, {"env": "B-v0"}, {"tasks": []}):
        message = refusal(json.dumps(document(**{"tasks": tasks, "num_tasks": 2} | wrong)))
        assert message.startswith("the run's spec has num_tasks ")


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FITTING.items() for value in values]
)
def test_the_fingerprint_changes_with_what_data_and_weights_depend_on(
    name: str, value: Any
) -> None:
    # when
    other = dataclasses.replace(SPEC, **{name: value})

    # then
    assert other.fingerprint != SPEC.fingerprint
    assert (difference := SPEC.difference(other))
    if not isinstance(value, ObservationSpec | ActionSpec):
        assert difference == f"{name} is {getattr(SPEC, name)} here and {value} there"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("observation", FITTING["observation"][0], "float32[4] here and float32[5]"),
        ("observation", FITTING["observation"][3], "float32[4] here and one of 4 values"),
        ("observation", FITTING["observation"][5], "float32[4] here and a float32[2]"),
        ("action", FITTING["action"][0], "one of 2 choices here and one of 3 choices"),
        ("action", FITTING["action"][2], "one of 2 choices here and choices of 2 x 3"),
        ("action", FITTING["action"][3], "one of 2 choices here and 2 numbers without bounds"),
        ("action", FITTING["action"][4], "one of 2 choices here and 2 numbers between bounds"),
    ],
)
def test_another_space_is_told_in_words(field: str, value: Any, words: str) -> None:
    other = dataclasses.replace(SPEC, **{field: value})
    assert SPEC.difference(other) == f"the {field} is {words} there"


def test_what_is_alike_in_words_is_told_by_what_differs() -> None:
    # given observations of the same shape
    stacked, scaled = (FITTING["observation"][index] for index in (7, 8))

    # then
    assert SPEC.difference(dataclasses.replace(SPEC, observation=stacked)) == (
        "frame_stack is 1 here and 4 there"
    )
    assert SPEC.difference(dataclasses.replace(SPEC, observation=scaled)) == (
        "the bounds of the observation's numbers are not the same here and there"
    )

    # given categories as many in all, and choices of which only a late one differs
    first, second = (
        ObservationSpec((8,), "uint8", parts=(ObservationPart("bag", (2,), "int32", values),))
        for values in ((3, 5), (4, 4))
    )
    many, more = (ActionSpec("multi_discrete", (2,) * 9 + (last,)) for last in (3, 4))

    # then
    assert dataclasses.replace(SPEC, observation=first).other_spaces(second, SPEC.action) == (
        "the numbers of values of bag are 4, 4 here and 3, 5 there"
    )
    assert dataclasses.replace(SPEC, action=many).other_spaces(SPEC.observation, more) == (
        "the action's sizes are, from number 10 on, 4 here and 3 there"
    )


@pytest.mark.parametrize("name", FREE)
def test_the_fingerprint_does_not_change_with_anything_else(name: str) -> None:
    # when
    other = dataclasses.replace(SPEC, **{name: FREE[name]})

    # then
    assert other != SPEC
    assert other.fingerprint == SPEC.fingerprint
    assert SPEC.difference(other) == ""


PICTURES = make_spec(
    "pictures",
    Config().replace(
        {
            "env": "Rooms-v0",
            "network": "deep",
            "hidden_sizes": [256],
            "activation": "relu",
            "lstm_size": 256,
            "extra_inputs": "last_action_reward",
            "unroll_length": 100,
            "weights_dtype": "bfloat16",
            "compression": "zstd",
        }
    ),
    ObservationSpec(
        (8648,),
        "uint8",
        parts=(
            ObservationPart("image", (60, 48, 3), "uint8", scale=(255,)),
            ObservationPart("mission", (2,), "int16", (5, 7), 8640),
        ),
        frame_stack=4,
    ),
    ActionSpec("multi_discrete", (3, 2)),
)
PENDULUM = make_spec(
    "pendulum",
    preset("pendulum"),
    ObservationSpec((3,), "float32"),
    ActionSpec("continuous", (1,), bounded=True),
)


@pytest.mark.parametrize(
    ("spec", "fingerprint"),
    [
        (SPEC, "7214bbdb2d8fea63"),
        (PICTURES, "4f6624f03b4eef3e"),
        (PENDULUM, "1ecbc4692e82bfa6"),
    ],
    ids=["box", "pictures", "numbers"],
)
def test_the_fingerprint_of_a_spec_is_the_same_on_every_machine_and_in_every_version(
    spec: RunSpec, fingerprint: str
) -> None:
    assert spec.fingerprint == fingerprint


def test_the_json_of_a_spec_is_the_same_on_every_machine() -> None:
    assert PICTURES.to_json() == (
        '{"observation": {"shape": [8648], "dtype": "uint8", "num_values": null, "parts": '
        '[{"name": "image", "shape": [60, 48, 3], "dtype": "uint8", "num_values": [], '
        '"start": 0, "scale": [255]}, {"name": "mission", "shape": [2], "dtype": "int16", '
        '"num_values": [5, 7], "start": 8640, "scale": []}], "frame_stack": 4, "scale": '
        '[], "mask": ""}, "action": {"kind": "multi_discrete", "sizes": [3, 2], "bounded": '
        'false}, "hidden_sizes": [256], "activation": "relu", "network": "deep", '
        '"network_config": "{}", "own": null, "lstm_size": 256, "extra_inputs": '
        '"last_action_reward", "normalize_observations": false, "num_tasks": 1, "text": '
        '"onehot", "run": "pictures", "env": "Rooms-v0", "tasks": [], "env_kwargs": "{}", '
        '"wrapper": [], "max_episode_steps": null, "mask_from": "observation", '
        '"env_processes": 0, "spaces": "", "unroll_length": 100, "envs_per_actor": 32, '
        '"queue_blocks": 4, "max_policy_age_s": 600.0, "seed": 0, "weights_dtype": '
        '"bfloat16", "compression": "zstd", "info_keys": [], "queue_policy": '
        '"drop-oldest", "popart": false, "start_frames": 0, "resumes": 0, "wire_version": '
        "6}"
    )


def test_a_spec_that_was_made_from_another_has_a_fingerprint_of_its_own() -> None:
    # given one that was asked for its fingerprint, which it then keeps
    before = SPEC.fingerprint

    # when
    other = dataclasses.replace(SPEC, unroll_length=21)

    # then
    assert other.fingerprint != before
    assert SPEC.fingerprint == before


def test_all_differences_are_told_together() -> None:
    # given
    other = dataclasses.replace(SPEC, env="Acrobot-v1", action=discrete(3))

    # when / then
    assert SPEC.difference(other) == (
        "env is CartPole-v1 here and Acrobot-v1 there; "
        "the action is one of 2 choices here and one of 3 choices there"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "no json",
        SPEC.to_json()[:-1],
        SPEC.to_json() + "}",
        b"\xff\xfe\xfd",
        b"\x00" * 40,
        b"\x80\x04K\x01.",  # a pickle
    ],
    ids=repr,
)
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    assert refusal(text).startswith("the run's spec is not JSON")


@pytest.mark.parametrize("text", ["null", "1", "NaN", "[]", '""', '"wire_version"', "{}", "[{}]"])
def test_json_that_is_no_spec_is_refused(text: str) -> None:
    assert refusal(text) == "the run's spec is not a spec: it has no wire_version"


@pytest.mark.parametrize(
    "version", [0, WIRE_VERSION + 1, -1, 99, "2", None, [1], {}, 1.5, True, 2.0], ids=repr
)
def test_another_wire_version_is_refused_with_the_remedy(version: Any) -> None:
    # when
    message = refusal(json.dumps(document(wire_version=version)))

    # then
    assert "install the same version" in message or "wire_version" in message


def test_another_wire_version_is_told_before_fields_that_only_it_has() -> None:
    message = refusal(json.dumps({"wire_version": WIRE_VERSION + 1, "new_field": 1}))
    said = f"the run speaks wire version {WIRE_VERSION + 1} and this program {WIRE_VERSION}"
    assert message.startswith(said)


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "wire_version"])
def test_a_missing_field_is_refused_by_name(name: str) -> None:
    # given
    without = document()
    del without[name]

    # when / then
    assert refusal(json.dumps(without)).endswith(f"missing or unknown fields: {name}")


def test_an_unknown_field_is_refused_by_name() -> None:
    message = refusal(json.dumps(document(color="red")))
    assert message.endswith("missing or unknown fields: color")


@pytest.mark.parametrize("name", PARTS)
def test_an_observation_must_have_all_its_fields(name: str) -> None:
    # given
    observation = document()["observation"]
    missing = {key: value for key, value in observation.items() if key != name}

    # when / then
    for wrong in (missing, observation | {"color": 1}, None, [], "float32", 4):
        assert "shape, dtype, num_values, parts, frame_stack" in refusal(
            json.dumps(document(observation=wrong))
        )


LONG = "x" * 257
PART = {
    **{"name": "a", "shape": [2], "dtype": "int16", "num_values": [3, 3], "start": 4},
    "scale": [],
}
WRONG: dict[str, list[Any]] = {
    "run": [None, 1, True, [], {}, LONG],
    "tasks": [None, 1, True, {}, "a", [1], [{}], [{"env": 3}], [{"env": "A-v0", "shares": 1}]],
    "num_tasks": [None, "1", 1.0, True, [], {}, 0, -1, 129],
    "env": [None, 1, True, [], {}, LONG],
    "env_kwargs": [None, 1, True, [], "[]", "{", "a", LONG],
    "wrapper": [None, "a:b", {}, [1], [None], [""], [["a"]]],
    "max_episode_steps": ["1", 1.0, True, [], {}, 0, -1],
    "mask_from": [None, 1, True, [], {}, "space", "", LONG],
    "env_processes": [None, "1", 1.0, True, [], {}, -1, 1025],
    "spaces": [None, 1, True, [], {}, "x" * 40_001],
    "normalize_observations": [None, 0, 1, "true", [], {}],
    "text": [None, 1, True, [], {}, "", "gru", LONG],
    "network_config": [None, 1, True, [], "[]", "{", "a", LONG],
    "own": [1, True, [], {}, "net", {"features_dim": 3}],
    "action": [None, "2", 2, True, [2], {}, {"kind": "discrete"}],
    "network": [None, 1, True, [], {}, "vgg", "", LONG],
    "lstm_size": [None, "1", 1.0, True, [], {}, -1, 65_537],
    "extra_inputs": [None, 1, True, [], {}, "last", "", LONG],
    "compression": [None, 1, True, [], {}, "zip", "", LONG],
    "queue_policy": [None, 1, True, [], {}, "wait", "", LONG],
    "hidden_sizes": [None, 64, "64", {}, [0], [-1], [65_537], [1.0], [True], [None], [[1]]],
    "activation": [None, 1, True, [], {}, "gelu", "", LONG],
    "info_keys": [None, "a", {}, [1], [None], [""], [" a"], ["a,b"], ["a\nb"], ["x" * 65], [["a"]]],
    "unroll_length": [None, "20", 20.0, True, [], {}, 0, -1, 10_001, 10**30],
    "envs_per_actor": [None, "1", 1.0, True, [], {}, 0, -1, 4097, 10**30],
    "queue_blocks": [None, "1", 1.0, True, [], {}, 0, -1],
    "start_frames": [None, "1", 1.0, True, [], {}, -1],
    "resumes": [None, "1", 1.0, True, [], {}, -1],
    "popart": [None, 1, "true", [], {}],
    "max_policy_age_s": [
        None,
        "1",
        True,
        [],
        {},
        0,
        -1.0,
        float("nan"),
        float("inf"),
        10**30,
        1e-300,
        0.999,
    ],
    "seed": [None, "1", 1.0, True, [], {}, -1, 2**63, 10**30],
    "weights_dtype": [None, 1, True, [], {}, "float16", "", LONG],
}
WRONG["hidden_sizes"].append([1] * 65)
WRONG["max_policy_age_s"] += [1e-300, 0.999]


def test_there_are_wrong_values_for_every_field() -> None:
    assert {*WRONG, "observation", "wire_version"} == set(FIELDS)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_type_or_a_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    # when
    message = refusal(json.dumps(document(**{name: value})))

    # then
    assert message.startswith(f"the run's spec has {name} ")
    assert len(message) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape", None),
        ("shape", 4),
        ("shape", "4"),
        ("shape", [-1]),
        ("shape", [4.0]),
        ("shape", [True]),
        ("shape", [[4]]),
        ("shape", [1] * 9),
        ("shape", [MAX_OBSERVATION_SIZE + 1]),
        ("shape", [4097, 4097]),
        ("shape", [10**30]),
        ("shape", [0]),
        ("dtype", None),
        ("dtype", 1),
        ("dtype", "object"),
        ("dtype", "O"),
        ("dtype", "float16"),
        ("dtype", "<f4"),
        ("dtype", ["float32"]),
        ("num_values", 0),
        ("num_values", -1),
        ("num_values", 65_537),
        ("num_values", "4"),
        ("num_values", True),
        ("num_values", 4.0),
        ("num_values", [4]),
        ("frame_stack", 0),
        ("frame_stack", 17),
        ("frame_stack", 4.0),
        ("frame_stack", None),
        ("parts", None),
        ("parts", {}),
        ("parts", [None]),
        ("parts", [{}]),
        ("parts", [PART] * 2),  # of what is not a row of bytes
    ],
)
def test_a_wrong_observation_is_refused(name: str, value: Any) -> None:
    message = refusal(json.dumps(with_observation(**{name: value})))
    assert message.startswith("the run's spec has ")


@pytest.mark.parametrize(
    "observation",
    [
        {"shape": [4], "dtype": "int64", "num_values": 5},
        {"shape": [], "dtype": "float32", "num_values": 5},
    ],
)
def test_an_index_that_is_an_array_or_a_fraction_is_refused(observation: dict[str, Any]) -> None:
    assert refusal(json.dumps(document(observation=observation))).startswith("the run's spec has")


@pytest.mark.parametrize(
    "scale", [None, 255, [0], [-1], [1.5], [True], ["255"], [1, 2, 3], [2**64 + 1], [[1]]], ids=str
)
def test_a_scale_that_does_not_fit_its_numbers_is_refused(scale: Any) -> None:
    for text in (
        json.dumps(with_observation(shape=[2, 2], dtype="int16", scale=scale)),
        of_parts(num_values=[], scale=scale),
    ):
        assert refusal(text).startswith("the run's spec has ")


@pytest.mark.parametrize("scale", [[], [255], [1, 2**64]])
def test_a_scale_comes_back_as_it_was(scale: list[int]) -> None:
    spec = RunSpec.from_json(of_parts(num_values=[], scale=scale))
    assert spec.observation.parts[0].scale == tuple(scale)
    assert RunSpec.from_json(spec.to_json()) == spec


def test_an_index_and_a_row_of_parts_have_no_scale() -> None:
    for row in (
        {"shape": [], "dtype": "int64", "num_values": 5},
        {"shape": [8], "dtype": "uint8", "parts": [PART]},
    ):
        assert "scale" in refusal(json.dumps(with_observation(**row, scale=[2])))


def of_parts(**changes: Any) -> str:
    """A document of eight bytes with one part, which is changed."""
    row = {"shape": [8], "dtype": "uint8", "parts": [PART | changes]}
    return json.dumps(with_observation(**row))


def test_parts_come_back_as_they_were() -> None:
    spec = RunSpec.from_json(of_parts())
    assert spec.observation.parts == (ObservationPart("a", (2,), "int16", (3, 3), 4),)
    assert RunSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 1),
        ("name", LONG),
        ("shape", [3]),  # three values, two limits
        ("shape", [0]),
        ("dtype", "object"),
        ("dtype", "float32"),  # a category is a whole number
        ("num_values", None),
        ("num_values", [3]),
        ("num_values", [0, 3]),
        ("num_values", [3, 65_537]),
        ("start", 3),  # not at a whole item
        ("start", 6),  # past the end of the row
        ("start", -2),
        ("start", 10**30),
        ("scale", [3]),  # of categories
        ("color", 1),
    ],
)
def test_a_wrong_part_is_refused(name: str, value: Any) -> None:
    assert refusal(of_parts(**{name: value})).startswith("the run's spec has ")


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "box", "sizes": [2], "bounded": False},
        {"kind": None, "sizes": [2], "bounded": False},
        {"kind": "discrete", "sizes": [], "bounded": False},
        {"kind": "discrete", "sizes": [2, 2], "bounded": False},
        {"kind": "discrete", "sizes": [0], "bounded": False},
        {"kind": "discrete", "sizes": [65_537], "bounded": False},
        {"kind": "discrete", "sizes": [True], "bounded": False},
        {"kind": "discrete", "sizes": [float("nan")], "bounded": False},
        {"kind": "discrete", "sizes": 2, "bounded": False},
        {"kind": "continuous", "sizes": [2, 2], "bounded": False},
        {"kind": "multi_discrete", "sizes": [65_536, 1], "bounded": False},
        {"kind": "multi_discrete", "sizes": [1] * 65, "bounded": False},
        {"kind": "discrete", "sizes": [2], "low": 0, "bounded": False},
        {"kind": "discrete", "sizes": [2], "bounded": True},
        {"kind": "continuous", "sizes": [2], "bounded": 1},
    ],
    ids=str,
)
def test_a_wrong_action_is_refused(action: dict[str, Any]) -> None:
    assert refusal(json.dumps(document(action=action))).startswith("the run's spec has action")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("name", ["nothing but that", *FIELDS])
def test_deep_json_is_refused_like_any_other(name: str, opening: str, closing: str) -> None:
    # given: depths on both sides of what Python's stack has room for
    for depth in (10, *range(900, 1000, 5), 100_000):
        deep = opening * depth + "1" + closing * depth
        if name in FIELDS:
            deep = json.dumps(document(**{name: "@"})).replace('"@"', deep)

        # when / then
        assert len(refusal(deep)) < 400


@quick
@given(st.randoms(use_true_random=False))
def test_damaged_json_gives_a_spec_or_a_mismatch_and_nothing_else(source: random.Random) -> None:
    # given
    data = bytearray(source.choice((SPEC, INDEX)).to_json().encode())
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(data))
        end = min(len(data), start + source.choice((0, 1, 1, 2, 8)))
        filler = source.choice((b"", b"0", b"-", b'"', b"[", b"}", b",", b"e9", b"\xff", b"null"))
        data[start:end] = filler

    # when
    try:
        spec = RunSpec.from_json(bytes(data))
    except SpecMismatch:
        return

    # then
    assert RunSpec.from_json(spec.to_json()) == spec


_any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["tanh", "float32", "int64", 2**63, 2**64, 65_536, 1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@quick
@given(name=st.sampled_from([*FIELDS, *PARTS]), value=_any_json)
def test_any_value_in_any_field_gives_a_spec_or_a_mismatch_and_nothing_else(
    name: str, value: Any
) -> None:
    # given
    changed = with_observation(**{name: value}) if name in PARTS else document(**{name: value})

    # when
    try:
        spec = RunSpec.from_json(json.dumps(changed))
    except SpecMismatch:
        return

    # then: what was taken has the declared types, and is written as it was read
    assert RunSpec.from_json(spec.to_json()) == spec
    assert isinstance(spec.run, str)
    assert all(type(size) is int for size in (*spec.hidden_sizes, *spec.observation.shape))
    for number in (spec.action.sizes[0], spec.unroll_length, spec.seed, spec.wire_version):
        assert type(number) is int


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 2**63},
        {"seed": 2**64},
        {"queue_blocks": 10**10},
        {"max_policy_age_s": 1e9},
        {"hidden_sizes": [1] * 65},
        {"env": "package.module:" + "x" * 300},
        {"unroll_length": 10_000, "envs_per_actor": 1024},
    ],
    ids=lambda values: ", ".join(values),
)
def test_a_config_that_is_taken_makes_a_spec_that_actors_can_read(values: dict[str, Any]) -> None:
    # given
    try:
        config = Config().replace(values)
    except ConfigError as error:
        assert str(error).startswith(tuple(values))  # refused at the start is as good
        return

    # when
    spec = make_spec("run", config, ObservationSpec((4,), "float32"), discrete(2))

    # then
    assert RunSpec.from_json(spec.to_json()) == spec


GAME, INDEX_OF_MANY = ObservationSpec((210, 160, 3), "uint8"), ObservationSpec((), "int64", 65_536)
SMALL = ObservationSpec((4,), "float32")
TOO_LARGE: list[tuple[str, dict[str, Any], ObservationSpec, ActionSpec]] = [
    ("a block", {"envs_per_actor": 4096, "unroll_length": 10_000}, SMALL, discrete(2)),
    ("a block", {"envs_per_actor": 4096}, GAME, discrete(6)),
    ("a block", {"unroll_length": 20}, ObservationSpec((2**24,), "uint8"), discrete(2)),
    ("a block", {"envs_per_actor": 1024, "lstm_size": 65_536}, SMALL, discrete(2)),
    ("a block", {"unroll_length": 10_000}, SMALL, ActionSpec("continuous", (65_536,))),
    ("the network's", {"hidden_sizes": [65_536, 65_536]}, SMALL, discrete(2)),
    ("the network's", {"hidden_sizes": [65_536] * 64}, SMALL, discrete(2)),
    ("the network's", {"lstm_size": 65_536}, SMALL, discrete(2)),
    (
        "the network's",
        {"envs_per_actor": 1, "unroll_length": 1},
        ObservationSpec((2**24,), "uint8"),
        discrete(2),
    ),
    (
        "4,096 env",
        {"envs_per_actor": 4096, "hidden_sizes": []},
        dataclasses.replace(INDEX_OF_MANY, frame_stack=16),
        discrete(2),
    ),
    (
        "4,096 env",
        {"envs_per_actor": 4096, "network": "deep", "unroll_length": 1},
        ObservationSpec((160, 160), "uint8"),
        discrete(2),
    ),
]


@pytest.mark.parametrize(("words", "values", "observation", "action"), TOO_LARGE)
def test_a_run_too_large_for_any_machine_is_refused_by_its_learner_and_by_every_actor(
    words: str, values: dict[str, Any], observation: ObservationSpec, action: ActionSpec
) -> None:
    # given its spec, as somebody may have written it into Redis
    small = make_spec("run", Config(), SMALL, discrete(2))
    config = Config().replace(values)
    large = dataclasses.replace(
        small, observation=observation, action=action, **{k: config.values()[k] for k in values}
    )

    # when its learner begins, and an actor reads it
    with pytest.raises(ConfigError) as caught:
        make_spec("run", config, observation, action)
    said = refusal(large.to_json())

    # then both say the same, with what to lower
    assert str(caught.value).startswith(words)
    assert re.search("; lower --[a-z-]+", str(caught.value))
    assert said == f"the run's spec will not do: {caught.value}"


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_is_near_what_is_too_large(name: str) -> None:
    config = preset(name).replace({"text": "onehot"})  # no text is seen here
    network = config.values()["network"]
    seen = ObservationSpec((84, 84), "uint8") if network != "mlp" else SMALL
    spec = make_spec("run", config, seen, discrete(18))
    check_size(dataclasses.replace(spec, envs_per_actor=4 * spec.envs_per_actor))


def test_a_network_that_its_own_observation_does_not_fit_is_no_spec() -> None:
    assert "--network deep needs a picture" in refusal(json.dumps(document(network="deep")))


def test_the_parameters_of_a_network_follow_from_the_spec() -> None:
    assert dataclasses.replace(SPEC, hidden_sizes=(8, 5)).parameter_shapes() == {
        "torso.0.weight": (8, 4),
        "torso.0.bias": (8,),
        "torso.1.weight": (5, 8),
        "torso.1.bias": (5,),
        "policy.weight": (2, 5),
        "policy.bias": (2,),
        "baseline.weight": (1, 5),
        "baseline.bias": (1,),
    }
    assert dataclasses.replace(SPEC, hidden_sizes=(8, 5)).num_parameters == 103
    assert INDEX.parameter_shapes()["policy.weight"] == (2, 16)
