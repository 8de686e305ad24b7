"""Every block of code in docs/your-policy.md runs, in its order, as one notebook."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_runs import save_run

from impala_redis.common.blocks import wire
from impala_redis.common.transport.learner_link import LearnerLink
from support import ROOT

PAGE = (ROOT / "docs" / "your-policy.md").read_text(encoding="utf-8")


def test_the_page_is_a_notebook_that_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    redis_url: str,
    run_name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # given the run that it names, and a learner that has published one
    monkeypatch.chdir(tmp_path)
    spec = save_run(tmp_path / "runs" / "cartpole", "CartPole-v1")
    link = LearnerLink(redis_url, run_name, "learner", 60.0)
    link.open()
    ones = {name: np.ones(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    link.publish(3, wire.pack_weights(ones, 3, spec))
    link.announce(spec.to_json(), spec.fingerprint, "running")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 6

    # when
    names: dict[str, Any] = {"address": redis_url}
    for block in blocks:
        exec(block.replace('load("cartpole"', f'load("{run_name}"'), names)
    link.close()

    # then
    assert names["total"] >= 1
    assert (names["policy"].version, names["newer"]) == (3, False)
    said = capsys.readouterr().out
    assert "CartPole-v1 0" in said
    assert "there is no run directory or checkpoint at runs/nothing" in said
