"""The settings: their declaration, checks, presets and precedence."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from impala_redis.common.errors import ConfigError
from impala_redis.common.presets.table import PRESETS, preset
from impala_redis.common.run import config
from impala_redis.common.run.config import Config, find_setting
from impala_redis.common.run.config_file import read_toml, to_toml
from impala_redis.common.settings.declaring import Setting
from impala_redis.workers.setting_options import SettingType

ALL = config.settings()
KEYS = [setting.key for setting in ALL]
NUMBERS = [setting for setting in ALL if setting.kind in (int, float)]


def by_key(items: list[Setting] | tuple[Setting, ...]) -> Any:
    return pytest.mark.parametrize("item", items, ids=lambda item: item.key)


def test_the_defaults_are_valid() -> None:
    assert Config().values() == {setting.key: setting.default for setting in ALL}


def test_the_defaults_are_the_papers_atari_column() -> None:
    # given: Espeholt et al. 2018, Table G.1
    table = {
        "unroll_length": 20,
        "batch_size": 32,
        "discounting": 0.99,
        "baseline_cost": 0.5,
        "entropy_cost": 0.01,
        "clip_rho": 1.0,
        "clip_c": 1.0,
        "reward_clipping": "abs_one",
        "reduction": "sum",
        "optimizer": "rmsprop",
        "learning_rate": 6e-4,
        "learning_rate_schedule": "linear",
        "rmsprop_momentum": 0.0,
        "rmsprop_epsilon": 0.01,
        "grad_norm_clipping": 40.0,
    }

    # when
    values = Config().values()

    # then
    assert {key: values[key] for key in table} == table


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_resolves(name: str) -> None:
    # when
    values = preset(name).values()

    # then
    assert {key: values[key] for key in PRESETS[name]} == PRESETS[name]
    rest = set(KEYS) - set(PRESETS[name]) - {"env" if "tasks" in PRESETS[name] else ""}
    assert all(values[key] == find_setting(key).default for key in rest)


def test_an_unknown_preset_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'pong'; there are: acrobot, atari"):
        preset("pong")


def test_no_two_settings_have_the_same_key() -> None:
    assert len(set(KEYS)) == len(KEYS)


def test_no_setting_is_named_like_a_program_option() -> None:
    others = {"redis_url", "run", "run_dir", "preset", "config", "device", "resume", "log_level"}
    assert not others & set(KEYS)


@by_key(ALL)
def test_every_setting_has_help_and_a_valid_default(item: Setting) -> None:
    assert item.help.strip() == item.help != ""
    assert "\n" not in item.help
    assert item.check(item.default) == item.default
    assert item.range()


@by_key(ALL)
def test_every_setting_is_found_in_either_spelling(item: Setting) -> None:
    assert find_setting(item.key) is item
    assert find_setting(item.key.replace("_", "-")) is item


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("learning_rat", "learning_rate"),
        ("lambda_", "lambda"),
        ("batchsize", "batch_size"),
        ("envs-per-actors", "envs_per_actor"),
    ],
)
def test_an_unknown_key_is_refused_with_a_near_name(key: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"no setting '{key}'; did you mean {near}\?"):
        Config().replace({key: 1})


def test_an_unknown_key_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"^there is no setting 'xyzzy'$"):
        find_setting("xyzzy")


@pytest.mark.parametrize(
    "value",
    ["many", "", True, False, float("nan"), float("inf"), -float("inf"), [1], {}],
    ids=repr,
)
def test_what_is_not_a_finite_number_is_refused(value: Any) -> None:
    for item in NUMBERS:
        with pytest.raises(ConfigError, match=rf"^{item.key} must be a (whole )?number"):
            item.check(value)


def test_a_whole_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^learning_rate must be a number"):
        Config().replace({"learning_rate": 10**400})


@by_key([setting for setting in ALL if setting.kind is int])
def test_a_fraction_is_no_whole_number(item: Setting) -> None:
    for value in (1.5, 2.0):
        with pytest.raises(ConfigError, match=rf"^{item.key} must be a whole number"):
            item.check(value)


@by_key([setting for setting in ALL if setting.kind is float and setting.below is None])
def test_a_whole_number_becomes_a_float_where_one_is_meant(item: Setting) -> None:
    checked = item.check(1)
    assert checked == 1.0
    assert type(checked) is float


@by_key([s for s in NUMBERS if (s.at_least, s.at_most, s.above) != (None, None, None)])
def test_a_number_outside_its_range_is_refused_and_the_bounds_are_inside_or_out_as_said(
    item: Setting,
) -> None:
    # given
    inside = [item.kind(bound) for bound in (item.at_least, item.at_most) if bound is not None]
    outside = [item.above] if item.above is not None else []
    outside += [item.at_least - 1] if item.at_least is not None else []
    outside += [item.at_most + 1] if item.at_most is not None else []

    # when / then
    assert [item.check(value) for value in inside] == inside
    for value in outside:
        with pytest.raises(ConfigError, match=rf"^{item.key} must be .*, not {item.kind(value)}$"):
            item.check(item.kind(value))


@pytest.mark.parametrize("value", ["other", "", "none ", 3, None, True, ["adam"]], ids=repr)
def test_only_the_choices_may_be_chosen(value: Any) -> None:
    for item in (setting for setting in ALL if setting.choices):
        assert all(item.check(choice) == choice for choice in item.choices)
        with pytest.raises(ConfigError, match=rf"^{item.key} must be .*{item.choices[0]}"):
            item.check(value)


@pytest.mark.parametrize("value", [5, 1.0, None, True, ["CartPole-v1"]], ids=repr)
def test_a_text_must_be_a_text(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^env must be text"):
        Config().replace({"env": value})


@pytest.mark.parametrize("value", [64, 64.0, "64", [0], [64.0], [True], [[64]], None], ids=repr)
def test_a_list_of_widths_must_be_whole_numbers_from_one_on(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^hidden_sizes must be whole numbers"):
        Config().replace({"hidden_sizes": value})


@pytest.mark.parametrize("value", [[], [8], (8, 4)], ids=repr)
def test_widths_become_a_tuple(value: Any) -> None:
    assert Config().replace({"hidden_sizes": value}).model.hidden_sizes == tuple(value)


@pytest.mark.parametrize(
    "value", ["success", [""], [" a"], ["a,b"], ["a\n"], [1], [None], [["a"]], ["x" * 65]], ids=repr
)
def test_a_list_of_names_must_be_names(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^info_keys must be names of 1 to 64 printable"):
        Config().replace({"info_keys": value})


@pytest.mark.parametrize("typed", ["success,a.b", " success , a.b ,"])
def test_names_are_typed_with_commas_and_stand_in_toml(typed: str, tmp_path: Path) -> None:
    # given
    given = SettingType(find_setting("info_keys")).convert(typed, None, None)
    config = Config().replace({"info_keys": [*given, 'quo"te', "c\u0153ur"]})

    # when
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config))

    # then
    assert config.environment.info_keys == ("success", "a.b", 'quo"te', "c\u0153ur")
    assert Config().replace(read_toml(file)) == config


@by_key([setting for setting in ALL if setting.optional])
@pytest.mark.parametrize("value", ["none", None])
def test_none_turns_an_optional_setting_off(item: Setting, value: str | None) -> None:
    assert item.check(value) is None


@pytest.mark.parametrize("value", ["none", None])
def test_none_is_no_value_of_the_others(value: str | None) -> None:
    for item in (setting for setting in NUMBERS if not setting.optional):
        with pytest.raises(ConfigError, match=rf"^{item.key} must be"):
            item.check(value)


@pytest.mark.parametrize("key", ["adam_beta1", "adam_beta2"])
def test_a_decay_of_one_is_refused_where_adam_would_divide_by_zero(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key} must be"):
        Config().replace({"optimizer": "adam", key: 1.0})


@pytest.mark.parametrize(
    ("clip_rho", "clip_c"), [(1.0, 2.5), (0.5, 1.0), (1.0, None), (100.0, None)]
)
def test_a_clip_rho_below_clip_c_is_refused(clip_rho: float | None, clip_c: float | None) -> None:
    with pytest.raises(ConfigError, match=r"clip_rho \(.*\) must be at least clip_c \(.*\)"):
        Config().replace({"clip_rho": clip_rho, "clip_c": clip_c})


@pytest.mark.parametrize(
    ("clip_rho", "clip_c"), [(1.0, 1.0), (2.5, 1.0), (None, 1.0), (None, None)]
)
def test_a_clip_rho_at_or_above_clip_c_is_taken(
    clip_rho: float | None, clip_c: float | None
) -> None:
    loss = Config().replace({"clip_rho": clip_rho, "clip_c": clip_c}).loss
    assert (loss.clip_rho, loss.clip_c) == (clip_rho, clip_c)


def test_replacing_changes_what_is_named_and_nothing_else() -> None:
    # given
    before = Config()

    # when
    after = before.replace({"batch-size": 7, "lambda": 0.5, "env": "Acrobot-v1"})

    # then
    assert before == Config()
    assert after.values() == before.values() | {
        "batch_size": 7,
        "lambda": 0.5,
        "env": "Acrobot-v1",
    }


def test_what_is_replaced_later_outranks_what_was_replaced_before() -> None:
    # given
    file, command_line = {"batch_size": 7, "seed": 5}, {"seed": 6}

    # when
    resolved = preset("cartpole").replace(file).replace(command_line)

    # then
    assert resolved.training.batch_size == 7  # the file outranks the preset
    assert resolved.training.seed == 6  # the command line outranks the file
    assert resolved.optimizer.optimizer == "adam"  # the preset outranks the default


def test_replacing_nothing_gives_an_equal_config() -> None:
    assert preset("acrobot").replace({}) == preset("acrobot")


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().training.seed = 1  # type: ignore[misc]


def test_a_config_built_by_hand_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"^batch_size must be a whole number, at least 1"):
        Config(training=config.TrainingSettings(batch_size=0))


POPART = {"popart": True, "reward_clipping": "none"}


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"returns": "monte_carlo"}, "set correction to none or one_step"),
        ({"returns": "monte_carlo", "correction": "none", "lambda": 0.9}, "lambda to 1"),
        ({"replay_share": 0.5, "batch_size": 1}, "not one trajectory"),
        ({"replay_share": 0.5, "replay_capacity": 15}, "less than the 16 trajectories"),
        ({"popart": True}, "reward_clipping is abs_one; give --reward-clipping none"),
        ({**POPART, "normalize_rewards": True}, "turn one of them off: --no-normalize-rewards"),
        ({**POPART, "reward_scale": 0}, "a reward_scale of 0 leaves none"),
        ({"env": "CartPole-v1,Acrobot-v1", "normalize_rewards": True}, "give --popart"),
        ({"force_lag": 10, "max_policy_lag": 9}, "would reject all"),
        ({"force_lag": 5, "max_policy_lag": 5}, "set it above 5, or to none"),
        ({"force_lag": 1, "max_policy_lag": 0}, "set it above 1, or to none"),
    ],
)
def test_settings_that_cannot_go_together_are_refused_with_the_remedy(
    values: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        Config().replace(values)


@pytest.mark.parametrize(("bound", "forced"), [(0, 0), (6, 5), (2, 1), (None, 100), (7, 0)])
def test_a_bound_on_lag_above_the_forced_one_is_taken(bound: int | None, forced: int) -> None:
    config = Config().replace({"max_policy_lag": bound, "force_lag": forced})
    assert (config.transport.max_policy_lag, config.transport.force_lag) == (bound, forced)


@pytest.mark.parametrize(
    ("share", "batch_size", "columns"),
    [(0.0, 32, 0), (0.5, 32, 16), (0.29, 100, 29), (0.99, 10, 9)],
)
def test_at_least_one_trajectory_of_a_batch_is_fresh(
    share: float, batch_size: int, columns: int
) -> None:
    config = Config().replace({"replay_share": share, "batch_size": batch_size})
    assert config.replayed_columns == columns < batch_size
