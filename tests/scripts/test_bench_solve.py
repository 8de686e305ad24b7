"""scripts/bench_solve.py: how long it takes to solve a task, beside `import torch` and another."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support import ROOT

# Programs that tell the same result at once: seconds by checkout and seed, and a greedy return.
TRAIN = """#!{python}
import json, pathlib, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = pathlib.Path(options["--run-dir"])
folder.mkdir(parents=True)
wall_s = {wall_s}[int(options["--seed"])]
result = {{"status": "solved", "wall_s": wall_s, "learner_s": 1.0, "frames": 1000}}
(folder / "result.json").write_text(json.dumps(result | {{"frames_per_s": 900}}))
with open({order!r}, "a") as order:
    order.write({name!r} + options["--seed"] + " ")
"""
EVAL = """#!{python}
print('{{"mean_return": {greedy}}}')
"""


def programs(folder: Path, name: str, wall_s: list[float], greedy: float) -> Path:
    """A checkout's programs, which do nothing but tell."""
    made = folder / name
    made.mkdir()
    fields = {"python": sys.executable, "name": name, "order": str(folder / "order")}
    for program, source in {"impala-train": TRAIN, "impala-eval": EVAL}.items():
        path = made / program
        path.write_text(source.format(wall_s=wall_s, greedy=greedy, **fields))
        path.chmod(0o755)
    return made


def test_two_checkouts_take_turns_beside_the_import_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given two checkouts whose times are known, and how long torch took to import meanwhile
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    bench_solve: Any = importlib.import_module("bench_solve")
    torch_s = iter([2.0, 2.0, 1.0, 4.0])
    monkeypatch.setattr(bench_solve, "import_torch_s", lambda: next(torch_s))
    monkeypatch.setattr(bench_solve, "BIN", programs(tmp_path, "ours", [1.0, 2.0], 500.0))
    theirs = programs(tmp_path, "theirs", [4.0, 4.0], 470.0)

    # when
    options = ["--seeds", "2", "--versus", str(theirs), "--keep", str(tmp_path / "kept")]
    monkeypatch.setattr(sys, "argv", ["bench_solve.py", *options])
    bench_solve.main()

    # then they took turns, and each time stands over that of the import beside it
    assert (tmp_path / "order").read_text().split() == ["ours0", "theirs0", "theirs1", "ours1"]
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["torch_ratio_median"] == 0.5
    assert document["theirs"]["torch_ratio_worst"] == 4.0
    assert document["ratio"] == {"median": 0.375, "low": 0.25, "high": 0.5}

    # and it is told whose final policies all reach the goal
    assert (document["greedy_all_reach_goal"], document["greedy_least"]) == (True, 500.0)
    assert document["theirs"]["greedy_all_reach_goal"] is False
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["ours", "theirs"]
