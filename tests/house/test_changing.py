"""docs/changing.md counts the files that a change touches, and the counts are true."""

import ast
import re

import pytest
from source import imports, sources

from impala_redis.workers.reporting.gallery import SECTIONS
from support import ROOT

PAGE = (ROOT / "docs" / "changing.md").read_text(encoding="utf-8")
# Heading, files as counted, and the numbered files below it.
TASKS = re.findall(r"^## (.*) \((\d) files?\)\n\n((?:\d\. .*\n(?:   .*\n)*)+)", PAGE, re.MULTILINE)


def test_the_page_has_its_three_tasks_within_their_bounds() -> None:
    bounds = {"Change the loss": 1, "Add a network with convolutions": 3, "Add a figure": 3}
    assert {task for task, _, _ in TASKS} == set(bounds)
    for task, count, listed in TASKS:
        assert len(re.findall(r"^\d\. ", listed, re.MULTILINE)) == int(count) <= bounds[task]


def test_the_figure_of_the_example_names_a_chart_that_there_is() -> None:
    (slug,) = re.findall(r'chart="([\w-]+)"', PAGE)
    assert slug in {chart.slug for charts in SECTIONS.values() for chart in charts}


def test_the_loss_is_computed_in_one_file_and_asked_for_in_one_place() -> None:
    users = [
        str(path.relative_to(ROOT))
        for path in sources("common", "workers")
        if "common.loss.impala.impala_loss" in imports(path)
    ]
    assert users == ["common/loss/task_loss.py"]


@pytest.mark.parametrize("kind", ["shallow", "nature", "deep"])
def test_a_kind_of_network_is_named_in_one_file_of_the_library(kind: str) -> None:
    # given the files whose code names the kind; presets choose among the kinds
    files = {
        str(path.relative_to(ROOT))
        for path in sources("common", "workers")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == kind
    }

    # then
    choices = {file for file in files if file.startswith("common/presets/")}
    assert files - choices == {"common/run/kinds.py"}
