"""scripts/inventory.py: each package once, with its licence, and no path of the machine."""

from importlib import metadata
from typing import Any

import pytest

from support import ROOT


@pytest.fixture(autouse=True)
def scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")


def component(name: str, ref: str, *urls: str) -> dict[str, Any]:
    references = [{"type": "distribution", "url": url} for url in urls]
    known = {"externalReferences": references} if urls else {}
    return {"name": name, "version": "1", "bom-ref": ref, **known}


def test_a_bill_has_each_component_once_and_names_no_folder_of_the_machine() -> None:
    # given an editable install, found where it is installed and in its checkout
    import inventory

    bill = {
        "bomFormat": "CycloneDX",
        "components": [
            component("ours", "ours==1", "file:///home/me/secret", "https://example.org"),
            component("ours", "again", "file:///home/me/secret"),
            component("other", "other==1"),
        ],
        "dependencies": [{"ref": "ours==1", "dependsOn": ["other==1"]}, {"ref": "again"}],
    }

    # when
    tidied = inventory.tidied(bill)

    # then
    assert [one["bom-ref"] for one in tidied["components"]] == ["ours==1", "other==1"]
    assert [one["ref"] for one in tidied["dependencies"]] == ["ours==1"]
    assert "file:" not in str(tidied)
    assert "https://example.org" in str(tidied)
    assert tidied["bomFormat"] == "CycloneDX"


def test_every_installed_package_has_a_line_with_a_licence() -> None:
    # given
    import inventory

    # when
    lines = inventory.list_of_licences().splitlines()

    # then
    assert len(lines) == len({one.name for one in metadata.distributions()})
    assert f"redis {metadata.version('redis')}: MIT" in lines
    assert not [line for line in lines if line.endswith((": ", ": unknown"))]
