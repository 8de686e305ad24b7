"""What is installed is what was looked at: versions, hashes, licences, and who installs."""

import base64
import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support import ROOT

HASHES = ROOT / "scripts" / "hashes"
# No extras of ours: torch with what its default build brings, and tools in other environments.
NOT_PINNED = {"torch", "tools"}


def packages_in(path: Path) -> dict[str, str]:
    """The version of each package of a file of pins, by its name as an index writes it."""
    found = re.findall(r"^([\w.-]+)==([\w.+]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


PINS = packages_in(ROOT / "constraints.txt")
SETS = {path.stem: packages_in(path) for path in HASHES.glob("*.txt")}
EXTRAS = dict(setup_cfg()["options.extras_require"])


# The hashes.


def test_the_core_and_each_extra_have_a_file_of_hashes() -> None:
    assert set(SETS) == {"core", "image", *EXTRAS, *NOT_PINNED}


def test_every_pinned_package_is_in_a_file_of_hashes_in_the_same_version_and_no_other_is() -> None:
    # given
    ours = [packages for name, packages in SETS.items() if name not in NOT_PINNED]

    # when
    hashed = {name: version for packages in ours for name, version in packages.items()}

    # then
    assert hashed | {"torch": SETS["torch"]["torch"]} == PINS
    assert all(packages.items() <= PINS.items() for packages in ours)


@pytest.mark.parametrize("path", sorted(HASHES.glob("*.txt")), ids=lambda path: path.stem)
def test_every_entry_is_an_exact_version_with_hashes_and_names_no_place(path: Path) -> None:
    # given
    entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8").strip())

    # then pip needs nothing else: no address, no option, no range of versions
    for entry in entries:
        head, *hashes = entry.split(" \\\n")
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [\w .'()=<>!]+)?", head)
        assert hashes
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes)


def needed_by(requirements: str) -> set[str]:
    """All that the requirements need on this machine, by what the installed packages say."""
    waiting = [Requirement(line) for line in requirements.strip().splitlines() if line[:1] != "#"]
    found: set[str] = set()
    done: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in done:
            continue
        done.add(str(requirement))
        found.add(canonicalize_name(requirement.name))
        for line in metadata.requires(requirement.name) or []:
            one = Requirement(line)
            extras = {"", *requirement.extras}
            if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(one)
    return found


def test_what_the_programs_need_here_is_in_core_or_comes_with_torch() -> None:
    # when
    needed = needed_by(setup_cfg()["options"]["install_requires"])

    # then
    assert {"torch", "redis", "mpmath"} <= needed
    assert needed <= set(SETS["core"]) | set(SETS["torch"])


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_what_an_extra_needs_here_is_in_its_file_or_in_core(extra: str) -> None:
    assert needed_by(EXTRAS[extra]) <= set(SETS[extra]) | set(SETS["core"])


# Licences, as the installed packages state them.

PERMISSIVE = {
    *("Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Apache Software License"),
    *("MIT", "MIT License", "MIT-CMU", "zlib", "Zlib", "BSL-1.0", "CC0-1.0"),
    *("BSD-2-Clause", "BSD-3-Clause", "0BSD", "BSD License", "3-Clause BSD License"),
    *("PSF-2.0", "Python Software Foundation License"),
}
# What is under another licence, and the extras that may bring it.
OTHERWISE = {
    "ale-py": {"atari"},
    "pygame-ce": {"box2d", "minigrid", "video"},
    "tqdm": {"video"},
    "hypothesis": {"dev"},
    "pathspec": {"dev"},
}


@pytest.mark.parametrize("name", sorted(set(SETS) - {"image", "tools"}))
def test_core_and_torch_are_under_permissive_licences_and_an_extra_is_but_for_what_notice_names(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given torch itself, and not the libraries of CUDA
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from inventory import licence_of

    packages = {"torch"} if name == "torch" else set(SETS[name])
    here = {canonicalize_name(one.name): one for one in metadata.distributions()}

    # when
    words = {
        package: set(re.split(r" AND | OR |, ", licence_of(here[package])))
        for package in packages & set(here)
    }

    # then
    assert words
    others = {package for package, said in words.items() if not said <= PERMISSIVE}
    assert others == {package for package, extras in OTHERWISE.items() if name in extras}


def test_notice_names_what_is_not_permissive_and_the_binaries_that_wheels_carry() -> None:
    # given
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for_users = {name for name, extras in OTHERWISE.items() if extras != {"dev"}}

    # then
    assert {name for name in for_users if name in notice} == for_users
    for carried in ("Valkey server, BSD-3-Clause", "ffmpeg, GPL-3.0-or-later", "CUDA"):
        assert carried in notice


# scripts/setup.sh, as it stands, with a project of two small packages and a folder as the index.

BACKEND = '''
"""Builds an editable wheel, in place of setuptools, which this folder of packages does not have."""
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("tiny-1.dist-info/METADATA", METADATA)
        wheel.writestr("tiny-1.dist-info/WHEEL", WHEEL)
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    return name

WHEEL = """Wheel-Version: 1.0
Root-Is-Purelib: true
Tag: py3-none-any
"""
METADATA = """Metadata-Version: 2.1
Name: tiny
Version: 1
Requires-Dist: torch
Requires-Dist: core-thing
Provides-Extra: more
Requires-Dist: more-thing; extra == "more"
"""
'''


class SmallCheckout:
    """A checkout whose setup.sh is ours, with tiny packages in a folder in place of an index."""

    def __init__(self, root: Path) -> None:
        self.root = root / "checkout"
        self.index = root / "index"
        self.index.mkdir(parents=True)
        hashes = self.root / "scripts" / "hashes"
        hashes.mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup.sh", self.root / "scripts")
        (self.root / "setup.cfg").write_text("[options.extras_require]\nmore =\n    more-thing\n")
        (self.root / "backend.py").write_text(BACKEND)
        (self.root / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        (self.root / "constraints.txt").write_text("torch==1\ncore-thing==1\nmore-thing==1\n")
        make_wheel(self.index, "torch", "1+cpu")
        for name in ("core", "more"):
            wheel = make_wheel(self.index, f"{name}_thing", "1")
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            (hashes / f"{name}.txt").write_text(f"{name}-thing==1 --hash=sha256:{digest}\n")

    def set_up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs setup.sh, with pip kept from every index and every setting of this machine."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "VIRTUAL"))}
        environment |= {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PYTHON": sys.executable,
        }
        environment |= {"PIP_FIND_LINKS": str(self.index), "PIP_NO_CACHE_DIR": "1"}
        return subprocess.run(
            ["./setup.sh", *arguments],
            cwd=self.root / "scripts",
            env=environment,
            capture_output=True,
            text=True,
            timeout=110,
        )

    def installed(self) -> dict[str, str]:
        (site,) = self.root.glob(".venv/lib/python*/site-packages")
        found = metadata.distributions(path=[str(site)])
        return {one.name: one.version for one in found if one.name not in ("pip", "setuptools")}

    def is_done(self) -> bool:
        return any(self.root.glob(".venv/.installed*"))


def make_wheel(folder: Path, name: str, version: str, said: str = "as published") -> Path:
    """A wheel that holds one module, which says `said`."""
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"SAID = {said!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in files.items())
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inner, text in {**files, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            wheel.writestr(zipfile.ZipInfo(inner), text)
    return path


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def with_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty .venv, made once, since that takes seconds."""
    folder = tmp_path_factory.mktemp("empty") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, with_venv: Path) -> Iterator[SmallCheckout]:
    made = SmallCheckout(tmp_path)
    shutil.copytree(with_venv, made.root / ".venv", symlinks=True)
    yield made


@pytest.mark.processes
def test_setup_installs_packages_as_published_and_keeps_a_build_of_torch(
    checkout: SmallCheckout,
) -> None:
    # when
    done = checkout.set_up("more")

    # then any build of the pinned torch will do, and all else is there
    assert done.returncode == 0, done.stderr
    assert checkout.installed() == {
        "torch": "1+cpu",
        "core_thing": "1",
        "more_thing": "1",
        "tiny": "1",
    }
    # and a second time there is nothing to do
    assert checkout.is_done()
    shutil.rmtree(checkout.index)
    again = checkout.set_up("more")
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.processes
@pytest.mark.parametrize("name", ["core", "more"])
def test_setup_refuses_a_package_with_other_bytes_and_installs_none(
    name: str, checkout: SmallCheckout
) -> None:
    # given a package of the right name and version, whole in itself, that says something else
    make_wheel(checkout.index, f"{name}_thing", "1", said="as tampered with")

    # when
    done = checkout.set_up("more")

    # then
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "error: not every package could be had as scripts/hashes/ has it" in done.stderr
    assert checkout.installed() == {}
    assert not checkout.is_done()


@pytest.mark.processes
def test_setup_downloads_nothing_that_has_no_hash(checkout: SmallCheckout) -> None:
    # given a package that is needed and can be had, but whose hash was forgotten
    (checkout.root / "scripts" / "hashes" / "more.txt").write_text("")

    # when
    done = checkout.set_up("more")

    # then
    assert done.returncode == 1
    assert "No matching distribution found for more-thing" in done.stderr
    assert "error: scripts/hashes/ lacks what pip names above" in done.stderr
    assert "more_thing" not in checkout.installed()
    assert not checkout.is_done()


@pytest.mark.parametrize("extra", ["atary", "tools", "more,torch"])
def test_setup_says_that_there_is_no_such_extra(extra: str, tmp_path: Path) -> None:
    # when
    done = SmallCheckout(tmp_path).set_up(extra)

    # then
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: there is no extra {extra.rpartition(',')[2]}")
