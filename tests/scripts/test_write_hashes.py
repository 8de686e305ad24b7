"""scripts/write_hashes.py: what goes into which file, and that a failure leaves the files alone."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from support import ROOT

SETUP_CFG = """
[options]
install_requires =
    torch
    core-thing
[options.extras_require]
# A comment in between.
more =
    more_thing
"""
# What asks for what; a stand-in for uv reads it, and prints as uv does.
NEEDS = {
    "torch": "torch==1 cuda==7|sys_platform_==_'linux'",
    "core-thing": "core-thing==1 shared==1 colour==1|sys_platform_==_'win32'",
    "more_thing": "more-thing==1 shared==1 both==1|"
    "sys_platform_==_'win32'_or_sys_platform_==_'linux'",
    "dumb-init": "dumb-init==1",
    "uv": "uv==1",
}
UV = f"""#!{sys.executable}
import sys
needs = {NEEDS!r}
if "--generate-hashes" not in sys.argv:
    sys.exit(2)
found = sorted({{one for line in sys.stdin.read().split() for one in needs.get(line, "").split()}})
for one in found:
    pin, _, marker = one.partition("|")
    marker = marker.replace("_==_", " == ").replace("_or_", " or ")
    print(pin + (" ; " + marker if marker else "") + " \\\\")
    print("    --hash=sha256:" + "0" * 64)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, in a small project and with the stand-in."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    module = importlib.import_module("write_hashes")
    (tmp_path / "setup.cfg").write_text(SETUP_CFG)
    (tmp_path / "constraints.txt").write_text(
        "torch==1\ncore_thing==1\nshared==1\nmore-thing==1\nboth==1\ndumb-init==1\n"
    )
    hashes = tmp_path / "hashes"
    hashes.mkdir()
    uv = tmp_path / "uv"
    uv.write_text(UV)
    uv.chmod(0o755)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "FOLDER", hashes)
    monkeypatch.setattr(module, "TOOLS", hashes / "tools.txt")
    monkeypatch.setattr(module, "install_tools", lambda folder: tmp_path)
    monkeypatch.setattr(sys, "argv", ["write_hashes.py"])
    yield module


def packages(folder: Path) -> dict[str, list[str]]:
    return {
        path.stem: re.findall(r"^([\w-]+)==", path.read_text(), re.MULTILINE)
        for path in (folder / "hashes").glob("*.txt")
    }


def test_each_package_goes_where_it_is_needed_and_windows_is_left_out(
    script: ModuleType, tmp_path: Path
) -> None:
    # when
    assert script.main() == 0

    # then what only torch brings is beside it, and an extra has no package of the core
    assert packages(tmp_path) == {
        "core": ["core-thing", "shared"],
        "torch": ["cuda", "torch"],
        "more": ["both", "more-thing"],
        "image": ["dumb-init"],
        "tools": ["uv"],
    }


@pytest.mark.parametrize(
    ("package", "what"), [("both", "extra more"), ("shared", "install_requires")]
)
def test_a_package_that_is_not_pinned_is_named_and_nothing_is_written(
    package: str, what: str, script: ModuleType, tmp_path: Path
) -> None:
    # given
    pins = tmp_path / "constraints.txt"
    pins.write_text(pins.read_text().replace(f"{package}==1\n", ""))

    # then
    with pytest.raises(SystemExit, match=rf"constraints\.txt lacks {package}, for {what}"):
        script.main()
    assert packages(tmp_path) == {}


def test_a_failure_of_uv_leaves_the_files_as_they_were(
    script: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # given
    old = tmp_path / "hashes" / "core.txt"
    old.write_text("old==1 \\\n    --hash=sha256:00\n")
    (tmp_path / "uv").write_text("#!/bin/sh\nexit 2\n")

    # then
    assert script.main() == 1
    assert capfd.readouterr().err == "error: uv failed; see above. Nothing was written.\n"
    assert packages(tmp_path) == {"core": ["old"]}
