"""scripts/gpu_kit.sh: the short form of its parts, on the CPU, and what becomes of their rows."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_redis.common.blocks.checks import fit_part
from impala_redis.common.blocks.trajectory import empty_trajectory
from support import ROOT

KIT = ROOT / "scripts" / "gpu_kit.sh"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


def kit(out: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(KIT), "--out", str(out), *options],
        env=os.environ | {"PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )


def plan_for(bench: Any, folder: Path, part: str, **changes: Any) -> Any:
    """A plan of a minute, on the CPU."""
    given = {"cores": 2, "ends_at": time.monotonic() + 60, "networks": ("mlp",)} | changes
    rows = str(folder / "rows.jsonl")
    return bench("bench.gpu.plan").Plan(part, "cpu", folder=str(folder), rows=rows, **given)


def rows_in(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.mark.processes
@pytest.mark.timeout(300)  # a minute, where it has a core to itself
def test_the_short_form_has_rows_and_tables_of_every_part_that_measures(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("zstandard")
    # when
    done = kit(tmp_path, "--parts", "a,c,d,e,b", "--networks", "mlp", "--minutes", "4")

    # then every part has its rows, and nothing failed
    assert done.returncode == 0, done.stdout
    document = json.loads((tmp_path / "kit.json").read_text())
    parts = document["parts"]
    assert list(parts) == ["a", "c", "d", "e", "b"]
    assert {name: of["failed"] for name, of in parts.items()} == dict.fromkeys(parts, ""), done
    assert document["device"] == "cpu"
    assert document["machine"].keys() >= {"card", "cores", "python", "torch", "numpy", "date"}
    cases = [(row["network"], row["precision"], row["mode"]) for row in parts["a"]["rows"]]
    assert {("mlp", "float32", mode) for mode in ("eager", "graph")} <= set(cases)
    assert len(set(cases)) == len(cases) > 2
    assert all(row["frames_per_s"] > 0 and row["kernels"] > 0 for row in parts["a"]["rows"])
    assert [row["engine"] for row in parts["c"]["rows"]] == ["auto", "torch"]
    started = max(1, min(8, len(os.sched_getaffinity(0)) - 2))  # not those that joined in time
    assert [row["num_actors"] for row in parts["c"]["rows"]] == [started] * 2
    assert [row["what"] for row in parts["d"]["rows"]] == ["alone", "beside a learner"]
    compared, *others = parts["e"]["rows"]
    assert compared["alike"] and compared["apart"] <= 1e-5
    timed = [(row["what"], row["ranks"]) for row in others if row["what"] != "compare"]
    assert timed == [("exchange", 2)] * 4 + [("add_up", 2)] * 2 + [("update", 1), ("update", 2)]
    (pong,) = parts["b"]["rows"]
    assert pong["curve"][-1]["frames"] == pong["frames"] > 0
    rates = ("frames_per_s", "policy_frames_per_s")  # the other one of what acts alone
    trained = [row for name in "bcd" for row in parts[name]["rows"]]
    assert all(any(row.get(rate, 0) > 0 for rate in rates) for row in trained)

    # and the tables, which the program also ends with, are marked
    page = (tmp_path / "kit.md").read_text()
    assert done.stdout.endswith(page + "\n")
    assert page.startswith("# cpu: a short form of the kit, which says nothing about a GPU\n")
    for words in (
        "Updates from memory",
        "Pong to a return",
        "CartPole's large",
        "The deep net",
        "Several",
    ):
        (line,) = (line for line in page.splitlines() if line.startswith(f"## {words}"))
        assert line.endswith("(cpu)")
    assert page.count("|---|") >= 4 + 2 + 3 + 1 + 4


def test_a_part_that_fails_or_takes_too_long_is_noted_and_keeps_its_rows(
    bench: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # given three parts: one fails after a row, one would go on for ever, one is sound
    folder = tmp_path / "modules" / "of_a_kit"
    folder.mkdir(parents=True)
    begin = (
        "from bench.gpu import plan\nimport sys, time\ndef part(given):\n    given.add({'n': 1})\n"
    )
    ends = {"fails": "    sys.exit('no luck')", "hangs": "    time.sleep(99)", "works": "    pass"}
    for name, end in ends.items():
        (folder / f"{name}.py").write_text(f"{begin}{end}\nplan.run(part)\n")
    gpu_kit, running = bench("gpu_kit"), bench("bench.gpu.running")
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    monkeypatch.setattr(running, "MODULES", "of_a_kit")
    parts = {name: gpu_kit.Part(name, 9, 9, 9, 6) for name in ends}
    monkeypatch.setattr(gpu_kit, "PARTS", parts)
    monkeypatch.setattr(gpu_kit, "BEGAN", time.monotonic())
    of_machine = {"card": "cpu"}

    # when
    sound = gpu_kit.Kit(tmp_path, of_machine, 9.0, ()).run(list(ends))

    # then each is told with what it had, and tables that cannot be made stop nothing
    done = json.loads((tmp_path / "kit.json").read_text())["parts"]
    assert [of["rows"] for of in done.values()] == [[{"n": 1}]] * 3
    assert done["fails"]["failed"] == "it ended with 1: no luck"
    assert done["hangs"]["failed"].startswith("it took longer than 6 s")
    assert (done["works"]["failed"], done["works"]["last_lines"]) == ("", [])
    said = capsys.readouterr().out
    assert (tmp_path / "kit.md").read_text() in said

    # and the kit says which failed
    assert not sound
    assert said.splitlines()[-1].startswith("error: failed: fails, hangs; ")


def test_parts_share_the_time_that_is_left(bench: Any, tmp_path: Path) -> None:
    # given a kit that has as long as all parts take on a GPU, and one with half of that
    gpu_kit = bench("gpu_kit")
    names, machine = list(gpu_kit.PARTS), {"card": "H100"}
    minutes = (time.monotonic() - gpu_kit.BEGAN) / 60 + 595 / 60
    whole, half = (gpu_kit.Kit(tmp_path, machine, minutes - less / 60, ()) for less in (0, 297.5))

    # then each part has its own time, or half of it, and Pong what the others have left
    assert whole._limit_s(names) == pytest.approx(40, abs=1)
    assert half._limit_s(names) == pytest.approx(20, abs=1)
    assert whole._limit_s(["b"]) == 300
    assert half._limit_s(["b"]) == pytest.approx(297.5, abs=1)


def test_random_rows_are_rows_that_the_learner_would_take(bench: Any) -> None:
    networks, rows_of = bench("bench.gpu.networks"), bench("bench.gpu.random_rows")
    for name in networks.KINDS:
        # given
        spec, _ = networks.run_of(name, {})
        rows = empty_trajectory(spec, 8)

        # when
        frames = rows_of.fill(rows, spec, seed=1)

        # then nothing is wrong with them, episodes end in them, and they are no zeros
        _, _, unfit = fit_part(rows, spec)
        assert not unfit
        assert 0 < frames == rows.mask.sum() < rows.mask.size
        assert (rows.discounts[:-1][~rows.mask[1:]] == 0).all()
        assert len(np.unique(rows.observations)) > 100


def test_the_time_that_a_device_works_is_counted_once(bench: Any) -> None:
    covered = bench("bench.gpu.watching").covered
    assert covered([(1, 4), (0, 2), (2, 3), (6, 7), (7, 8)]) == 6
    assert covered([]) == 0


def test_the_step_of_a_graph_is_compared_with_that_of_its_own_case(bench: Any) -> None:
    # given
    updates = bench("bench.gpu.updates")
    compared, step = updates.Comparison(), np.array([3.0, 4.0], np.float32)
    eager = updates.Case("mlp", "float32", 8, "eager")
    graph = eager._replace(mode="graph")

    # then
    assert compared.apart(eager, step) is None
    assert compared.apart(graph, step + np.float32(0.3)) == pytest.approx(0.3 * 2**0.5 / 5)
    assert compared.apart(graph._replace(batch_size=9), step) is None


def test_cases_for_which_there_is_no_time_are_listed(bench: Any, tmp_path: Path) -> None:
    # when
    updates = bench("bench.gpu.updates")
    updates.updates(plan_for(bench, tmp_path, "a", ends_at=0.0))

    # then
    (row,) = rows_in(tmp_path)
    assert [case["network"] for case in row["left_out"]] == ["mlp"] * len(
        updates.cases(False, ["mlp"])
    )
    (line,) = list(bench("bench.gpu.tables").update_tables([row]))[-1:]
    assert line == f"Left out for want of time: {len(row['left_out'])} cases."


def test_a_case_that_fails_is_told_and_the_others_are_measured(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    updates = bench("bench.gpu.updates")
    cases = [updates.Case("mlp", "float32", size, "eager") for size in (-1, 1)]
    monkeypatch.setattr(updates, "cases", lambda *_: cases)

    # when
    with pytest.raises(updates.CasesFailed, match=r"1 cases, of which the first is .*-1"):
        updates.updates(plan_for(bench, tmp_path, "a"))

    # then
    failed, measured = rows_in(tmp_path)
    assert failed["failed_case"]["batch_size"] == -1
    assert measured["batch_size"] == 1 and measured["updates"] >= 2


@pytest.mark.processes
def test_a_learner_of_a_group_that_ends_badly_is_told(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a second learner that ends before it has met the first one
    group = bench("bench.gpu.group")
    monkeypatch.setattr(group, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(group, "MEMBER", ["-c", "raise SystemExit('no luck')"])

    # then
    with pytest.raises(group.GroupFailed, match=r"; rank 1 ended with 1: no luck$"):
        group.group(plan_for(bench, tmp_path, "e"))


def test_the_tests_that_need_a_gpu_are_found_and_counted(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a project of one such test that fails, one that is skipped, and others
    gpu_tests = bench("bench.gpu.gpu_tests")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(
        f"import pytest\nthere, not_there = (\n"
        f"    pytest.mark.skipif(no, reason={gpu_tests.REASON!r}) for no in (False, True)\n)\n"
        "@there\ndef test_a_gpu_adds(): assert 1 + 1 == 3\n"
        "@not_there\ndef test_a_gpu_waits(): assert False\n"
        "def test_something_else(): assert False\n"
    )
    (tmp_path / "tests" / "test_other.py").write_text("def test_a_gpu_too(): assert False\n")
    monkeypatch.setattr(gpu_tests, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "scripts"))

    # when
    with pytest.raises(gpu_tests.TestsFailed, match=r"1: tests\.test_some::test_a_gpu_adds$"):
        gpu_tests.gpu_tests(plan_for(bench, tmp_path, "tests"))

    # then
    (row,) = rows_in(tmp_path)
    assert (row["passed"], row["failed"], row["skipped"]) == (0, 1, 1)
    table, name = bench("bench.gpu.tables").test_tables([row])
    assert table.splitlines()[2].startswith("| 0 | 1 | 1 |")
    assert name == "- tests.test_some::test_a_gpu_adds"


def test_a_part_that_there_is_not_is_refused(tmp_path: Path) -> None:
    done = kit(tmp_path, "--parts", "a,z")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].endswith(
        "argument --parts: z is none of tests, a, c, d, e, b"
    )
