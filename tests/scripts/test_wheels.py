"""scripts/gpu_kit.sh --fetch: what it brings is all that the project needs elsewhere."""

import importlib
from importlib import metadata
from typing import Any

import pytest

from support import ROOT


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("bench.gpu.wheels")


def test_every_wanted_package_has_hashes_and_nothing_that_they_need_is_missing(wheels: Any) -> None:
    # given the versions that are installed here, which are those of the hashes
    entries = wheels.pins(wheels.WANTED)
    versions = dict(
        entry.split(" ")[0].split("==") for entry in entries.splitlines() if "==" in entry[:40]
    )
    assert set(versions) == set(wheels.WANTED)
    needs = {name: metadata.requires(name) or [] for name in versions}
    needs["the project"] = wheels.requirements_of_project()

    # then
    assert list(wheels.unmet(versions, needs, "3.12")) == []


def test_a_requirement_that_nothing_meets_is_named(wheels: Any) -> None:
    needs = ["b>=2", "c; python_version < '3.12'", "numpy>99", "d", "E_f", "g; extra == 'more'"]
    found = wheels.unmet({"b": "1.0", "e-f": "1"}, {"a": needs}, "3.12")
    assert list(found) == ["a needs b>=2, and there is 1.0", "a needs d, and there is none"]
