"""A run directory is read as it was left: half-written, odd, of another version, or not at all."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_redis.common.errors import ConfigError, RunUnreadable
from impala_redis.common.records import history
from impala_redis.common.records.history import grouped, read_run, series
from impala_redis.common.records.lines import number_or_nan
from impala_redis.common.records.rundir import FORMAT, RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.run.saved_spec import MADE_BY
from impala_redis.workers.reporting.curves import POINTS, Curve, curve_of, spread


def write(path: Path, records: Sequence[Any] = ({"frames": 1},), **changed: Any) -> Path:
    """A run directory with those records; texts become lines as they are."""
    path.mkdir(parents=True, exist_ok=True)
    directory = RunDirectory(path)
    directory.write_config("mine", "cartpole", Config().replace(changed))
    lines = [one if isinstance(one, str) else json.dumps(one) + "\n" for one in records]
    directory.metrics.write_text("".join(lines))
    return path


def rows(name: str, values: Mapping[float, float]) -> list[dict[str, float]]:
    """Records of one figure over frames."""
    return [{"frames": frames, name: value} for frames, value in values.items()]


def test_a_run_tells_its_name_preset_settings_and_records(tmp_path: Path) -> None:
    # given
    write(tmp_path, [{"frames": 5, "loss": 2.0}, {"frames": 9}], seed=3)

    # when
    run = read_run(tmp_path)

    # then
    assert (run.name, run.preset, run.seed, run.result) == ("mine", "cartpole", 3, {})
    assert run.settings["env"] == "CartPole-v1"
    assert (run.records.count, run.skipped_lines) == (2, 0)
    x, y = series(run.records, "loss")
    assert (x.tolist(), y.tolist()) == ([5.0], [2.0])


def test_a_line_that_a_killed_learner_left_unfinished_is_skipped_and_counted(
    tmp_path: Path,
) -> None:
    write(tmp_path, [{"frames": 5}, '{"frames": 7, "lo'])
    run = read_run(tmp_path)
    assert (run.records.count, run.skipped_lines) == (1, 1)


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[1, 2]", "null", "\x00\xff", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"],
    ids=["no JSON", "a list", "null", "bytes", "deep", "a number of 5000 digits"],
)
def test_a_line_that_is_no_record_is_skipped_and_counted(tmp_path: Path, line: str) -> None:
    write(tmp_path, [{"frames": 5}, line + "\n", "\n", {"frames": 6}])
    run = read_run(tmp_path)
    assert (run.records.count, run.skipped_lines) == (2, 1)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e200", "true", '"7"', "null", "{}", "[1]"])
def test_a_figure_that_is_no_number_is_passed_over(tmp_path: Path, value: str) -> None:
    write(tmp_path, [f'{{"frames": 5, "loss": {value}}}\n', {"frames": 6, "loss": 1}])
    run = read_run(tmp_path)
    assert series(run.records, "loss")[1].tolist() == [1.0]
    assert run.skipped_lines == 0


def test_a_result_that_is_damaged_counts_as_none(tmp_path: Path) -> None:
    write(tmp_path)
    for text in ('{"status": ', "[" * 100_000, '"solved"', "9" * 5000):
        RunDirectory(tmp_path).result.write_text(text)
        assert read_run(tmp_path).result == {}


def test_a_run_without_a_config_is_read_without_settings(tmp_path: Path) -> None:
    write(tmp_path / "somewhere")
    RunDirectory(tmp_path / "somewhere").config.unlink()
    run = read_run(tmp_path / "somewhere")
    assert (run.name, run.settings, run.seed) == ("somewhere", {}, None)


def test_what_holds_no_run_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    write(tmp_path / "runs" / "cartpole")
    for name, sentence in {
        "nowhere": "there is no directory .*nowhere; name one that holds a run",
        "empty": r"empty holds no run \(neither config.toml nor metrics.jsonl\)",
        "file": "file is a file; name a directory that holds a run",
        "runs": r"runs holds no run \(.*\); name one in it: .*runs/cartpole",
    }.items():
        with pytest.raises(RunUnreadable, match=sentence):
            read_run(tmp_path / name)


@pytest.mark.parametrize("records", [[], ["half a li"]])
def test_a_run_without_records_says_so(tmp_path: Path, records: list[str]) -> None:
    write(tmp_path, records)
    with pytest.raises(RunUnreadable, match="has no records yet"):
        read_run(tmp_path)


@pytest.mark.parametrize("config", ["seed = ", "seed = -1", "sead = 1", "\xff"])
def test_a_damaged_config_is_named_with_a_remedy(tmp_path: Path, config: str) -> None:
    write(tmp_path)
    RunDirectory(tmp_path).config.write_bytes(config.encode("latin-1"))
    with pytest.raises(RunUnreadable, match=r"cannot be read.*repair its config.toml"):
        read_run(tmp_path)


def test_a_setting_of_a_newer_version_is_named_with_a_remedy(tmp_path: Path) -> None:
    write(tmp_path)
    config = RunDirectory(tmp_path).config
    config.write_text(config.read_text() + "\nsetting_to_come = 1\n")
    with pytest.raises(RunUnreadable, match=r"'setting_to_come'.*newer version.*install that one"):
        read_run(tmp_path)
    said = rf"config.toml: .*'setting_to_come'.*install that one \({re.escape(MADE_BY)}\)"
    with pytest.raises(ConfigError, match=said):
        RunDirectory(tmp_path).read_config()  # a resume, too


def test_a_directorys_name_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J"
    for make in (lambda: None, lambda: write(path, [])):
        make()
        with pytest.raises(RunUnreadable) as refused:
            read_run(path)
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("found", ["2", "1.5", "true", '"\\u001b[31m"'])
def test_a_run_of_a_newer_version_is_refused(tmp_path: Path, found: str) -> None:
    # given a run, and one of the same that a version to come has written
    write(tmp_path)
    read_run(tmp_path)
    config = RunDirectory(tmp_path).config
    config.write_text(config.read_text().replace(f"format = {FORMAT}", f"format = {found}"))

    # when / then
    with pytest.raises(RunUnreadable, match=r"newer version of impala-redis \(format .*install"):
        read_run(tmp_path)
    with pytest.raises(RunUnreadable) as refused:
        RunDirectory(tmp_path).read_config()  # a resume, too
    assert str(refused.value).isprintable()

    # and its version is named if the file says it
    config.write_text(config.read_text().replace(MADE_BY, "impala-redis 7.5"))
    with pytest.raises(RunUnreadable, match=r"install that version \(impala-redis 7.5\)$"):
        RunDirectory(tmp_path).read_config()


def test_a_run_of_before_there_was_a_format_is_read(tmp_path: Path) -> None:
    write(tmp_path)
    config = RunDirectory(tmp_path).config
    before = config.read_text()
    config.write_text(before.replace(f"format = {FORMAT}\n", ""))
    assert config.read_text() != before
    assert read_run(tmp_path).name == "mine"


def test_a_mean_is_weighted_and_leaves_the_start_out(tmp_path: Path) -> None:
    # given 1 update in the first record, then 10 and 30
    counted = [(1, 99.0), (11, 1.0), (41, 2.0), (42, None)]
    records = [{"updates": updates, "forward_s": value} for updates, value in counted]
    run = read_run(write(tmp_path, records))

    # when / then
    assert history.mean(run.records, "forward_s", "updates") == pytest.approx((10 + 60) / 40)
    assert history.mean(run.records, "backward_s", "updates") is None
    alone = read_run(write(tmp_path / "alone", records[:1]))
    assert history.mean(alone.records, "forward_s", "updates") == 99.0


def test_a_figure_that_is_absent_for_a_while_stays_with_its_own_records(tmp_path: Path) -> None:
    # given values in the third, the sixth and the seventh of eight records
    values = {30: 3.0, 60: 6.0, 70: 7.0}
    records = [
        {"frames": f} | ({"loss": values[f]} if f in values else {}) for f in range(10, 90, 10)
    ]
    records[4]["loss"] = math.nan

    # when
    run = read_run(write(tmp_path, records))

    # then
    x, y = series(run.records, "loss")
    assert (x.tolist(), y.tolist()) == ([30.0, 60.0, 70.0], [3.0, 6.0, 7.0])
    assert len(run.records.column("loss")) == run.records.count == 8
    assert run.records.last("loss") == 7.0


def test_a_mean_does_not_count_records_at_which_updates_fell(tmp_path: Path) -> None:
    # given a run that was resumed from update 5
    counted = [(1, 99.0), (11, 1.0), (5, 50.0), (15, 2.0), (35, 4.0)]
    records = [{"updates": updates, "forward_s": value} for updates, value in counted]
    run = read_run(write(tmp_path, records))

    # when / then
    expected = (10 * 1.0 + 10 * 2.0 + 20 * 4.0) / 40
    assert history.mean(run.records, "forward_s", "updates") == pytest.approx(expected)


def test_no_more_than_1000_figures_are_kept_and_those_go_on(tmp_path: Path) -> None:
    # given three times as many names, lists among them
    first: dict[str, Any] = {"frames": 1, "returns": [1.0]}
    first |= {f"x{i}": [i] if i % 2 else i for i in range(1500)}
    run = read_run(
        write(tmp_path, [first, {"frames": 2, "returns": [2.0], "late": 1, "more": [1]}])
    )

    # when / then
    records = run.records
    assert history.FIGURES == len(records.numbers) + len(records.lists) == 1000
    assert not {"late", "more", "x998"} & {*records.numbers, *records.lists}
    assert records.column("frames").tolist() == [1.0, 2.0]
    assert len(records.lists["returns"]) == 2


def test_very_many_records_are_thinned_by_means_least_and_greatest(tmp_path: Path) -> None:
    # given a figure that alternates between 1 and 3
    count = 10 * POINTS
    records = [
        {"frames": i, "rho_mean": value, "rho_min": value, "old_max": value}
        for i in range(count)
        for value in [1.0 + 2.0 * (i % 2)]
    ]
    run = read_run(write(tmp_path, records))

    # when / then
    for name, expected in {"rho_mean": 2.0, "rho_min": 1.0, "old_max": 3.0}.items():
        curve = curve_of([run], name)
        assert curve is not None
        assert len(curve.x) == POINTS
        assert np.all(np.diff(curve.x) > 0)
        assert curve.y.tolist() == [expected] * POINTS


@pytest.mark.parametrize(
    ("name", "expected"), [("rho_mean", 4.0), ("rho_min", 2.0), ("old_max", 6.0)]
)
def test_records_without_a_value_do_not_count_when_records_are_thinned(
    tmp_path: Path, name: str, expected: float
) -> None:
    # given values in two of four records, and in none of the last point's
    records: list[dict[str, float]] = [{"frames": i} for i in range(4 * POINTS)]
    for i in range(0, 4 * POINTS - 4, 4):
        records[i + 1][name], records[i + 3][name] = 2.0, 6.0

    # when
    curve = curve_of([read_run(write(tmp_path, records))], name)

    # then
    assert curve is not None
    assert curve.y[:-1].tolist() == [expected] * (POINTS - 1)
    assert math.isnan(curve.y[-1])
    assert curve.x[0] == 1.5


def test_what_goes_back_is_left_out_where_runs_are_laid_together(tmp_path: Path) -> None:
    # given two runs; of one the frames fell back when it was resumed
    fallen = [(0, 0.0), (100, 10.0), (50, 90.0), (100, 90.0), (200, 20.0)]
    runs = [
        read_run(
            write(tmp_path / str(seed), [{"frames": f, "loss": v} for f, v in line], seed=seed)
        )
        for seed, line in enumerate([fallen, [(0, 0.0), (200, 20.0)]])
    ]

    # when
    curve = curve_of(runs, "loss")

    # then
    assert isinstance(curve, Curve) and curve.high is not None
    assert curve.y == pytest.approx(curve.x / 10)
    assert curve.high == pytest.approx(curve.x / 10)


def test_several_runs_are_laid_on_common_points_as_far_as_each_went(tmp_path: Path) -> None:
    # given one run that goes to 100 and one that goes to 200
    short = read_run(write(tmp_path / "a", rows("loss", {0: 0.0, 100: 10.0}), seed=1))
    long = read_run(write(tmp_path / "b", rows("loss", {0: 2.0, 200: 2.0}), seed=2))

    # when
    curve = curve_of([short, long], "loss")

    # then the mean is of both, and beyond 100 of the long one
    assert curve is not None and curve.low is not None and curve.high is not None
    assert (curve.x[0], curve.x[-1]) == (0.0, 200.0)
    both = curve.x <= 100
    assert curve.y[both] == pytest.approx((curve.x[both] / 10 + 2) / 2)
    assert curve.high[both] == pytest.approx(np.maximum(curve.x[both] / 10, 2))
    assert curve.y[~both] == pytest.approx(2.0)
    assert curve.low[~both] == pytest.approx(2.0)


def test_the_start_can_be_left_out_of_a_curve(tmp_path: Path) -> None:
    run = read_run(write(tmp_path, rows("wait_s", {0: 9.0, 1: 1.0, 2: 2.0, 3: 3.0})))
    for runs in ([run], [run, run]):
        curve = curve_of(runs, "wait_s", from_start=False)
        assert curve is not None
        assert (curve.x[0], curve.y.max()) == (1.0, 3.0)


def test_what_is_in_no_run_gives_no_curve(tmp_path: Path) -> None:
    run = read_run(write(tmp_path))
    assert curve_of([run], "loss") is None
    assert curve_of([run, run], "loss") is None


def test_single_values_lie_between_their_record_and_the_one_before(tmp_path: Path) -> None:
    records = [{"episodes": 2, "returns": [1.0, "x"]}, {"episodes": 6, "returns": [5, 7]}]
    run = read_run(write(tmp_path, records))
    x, y = spread(run.records, "returns", "episodes")
    assert (x.tolist(), y.tolist()) == ([1.0, 4.0, 6.0], [1.0, 5.0, 7.0])


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path: Path) -> None:
    # given
    runs = [
        read_run(write(tmp_path / f"{rate}-{seed}", seed=seed, learning_rate=rate))
        for rate in (0.001, 0.002)
        for seed in (1, 2)
    ]

    # when
    groups = grouped(runs)

    # then
    assert [group.differing for group in groups] == [
        {"learning_rate": 0.001},
        {"learning_rate": 0.002},
    ]
    assert [[run.seed for run in group.runs] for group in groups] == [[1, 2], [1, 2]]
    assert grouped(runs[:2])[0].differing == {}


def test_a_number_is_one_that_can_be_drawn() -> None:
    assert number_or_nan(3) == 3.0
    assert all(math.isnan(number_or_nan(v)) for v in (True, "3", None, 10**400, math.inf, [3]))
