#!/usr/bin/env python
"""Writes scripts/hashes/: the SHA-256 of every file of every package in constraints.txt.

usage: .venv/bin/python scripts/write_hashes.py [--upgrade-tools]

Run it after a change of constraints.txt or of the requirements in setup.cfg, and read the
difference before you commit it. The hashes are those that the package index lists, for every
platform and every Python that a package has files for. So one machine writes them for all.

core.txt is what the programs need but torch; torch.txt holds torch, as the default index has it,
and the libraries of CUDA that come with it; each extra has what it adds to core.txt; image.txt is
for the container alone; tools.txt is for this script and scripts/inventory.py, which install it
into environments of their own.
"""

import configparser
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "scripts" / "hashes"
TOOLS = FOLDER / "tools.txt"
WANTED_TOOLS = ("cyclonedx-bom", "pip-audit", "uv")
IMAGE = ("dumb-init",)
OLDEST_PYTHON = "3.11"

# One entry is a package: its pin with its marker, and a line for each hash.
Entries = dict[str, str]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        try:
            tools = install_tools(Path(folder))
            written = _all_sets(tools / "uv", upgrade_tools="--upgrade-tools" in sys.argv[1:])
        except subprocess.CalledProcessError as error:
            sys.stderr.write(
                f"error: {Path(error.cmd[0]).name} failed; see above. Nothing was written.\n"
            )
            return 1
    for name, entries in written.items():
        text = "".join(f"{entries[package]}\n" for package in sorted(entries))
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"{name}.txt: {len(entries)} packages, {text.count('--hash=')} hashes")
    return 0


def install_tools(folder: Path) -> Path:
    """Make an environment with the tools in `folder` and return where its programs are.

    They are checked against tools.txt if that is there. Raises CalledProcessError if pip fails.
    """
    venv.create(folder, with_pip=True)
    hashed = ("--require-hashes", "--no-deps", "--requirement", str(TOOLS))
    programs = folder / "bin"
    pip = (str(programs / "python"), "-m", "pip", "install", "--quiet")
    subprocess.run([*pip, *(hashed if TOOLS.exists() else WANTED_TOOLS)], check=True)
    return programs


def _all_sets(uv: Path, upgrade_tools: bool) -> dict[str, Entries]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    needed = parser["options"]["install_requires"].split("\n")
    pins = ["--constraint", str(ROOT / "constraints.txt")]

    without_torch = [line for line in needed if not re.match(r"torch\b", line)]
    _check_pinned(resolve(uv, without_torch, *pins), "install_requires")
    with_torch = resolve(uv, needed, *pins)
    of_torch = {"torch", *(set(with_torch) - _pinned())}
    core = {name: entry for name, entry in with_torch.items() if name not in of_torch}
    sets = {"core": core, "torch": {name: with_torch[name] for name in of_torch}}
    for extra, requirements in parser["options.extras_require"].items():
        both = resolve(uv, [*needed, *requirements.split("\n")], *pins)
        sets[extra] = {name: entry for name, entry in both.items() if name not in with_torch}
        _check_pinned(sets[extra], f"extra {extra}")
    sets["image"] = resolve(uv, IMAGE, *pins)
    # Without --upgrade-tools the versions that the file has are kept.
    old = [] if upgrade_tools or not TOOLS.exists() else ["--constraint", str(TOOLS)]
    sets["tools"] = resolve(uv, WANTED_TOOLS, *old)
    return sets


def resolve(uv: Path, requirements: Iterable[str], *options: str) -> Entries:
    """Return what installs `requirements` on any platform, by the package's name in lower case."""
    command = [uv, "pip", "compile", "-", "--universal", "--python-version", OLDEST_PYTHON]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-config", "--quiet"]
    # pip is told of a certificate in this way, uv in another.
    environment = dict(os.environ)
    if "PIP_CERT" in environment:
        environment.setdefault("SSL_CERT_FILE", environment["PIP_CERT"])
    done = subprocess.run(
        [*command, *options],
        input="\n".join(line for line in requirements if not line.startswith("#")),
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=True,
    )
    entries = re.split(r"\n(?=\S)", done.stdout.strip())
    return {_name(entry): entry for entry in entries if not _is_for_windows_alone(entry)}


def _is_for_windows_alone(entry: str) -> bool:
    marker = entry.split("\\\n")[0].partition(";")[2]
    return "sys_platform == 'win32'" in marker and " or " not in marker


def _check_pinned(entries: Entries, what: str) -> None:
    if missing := set(entries) - _pinned():
        sys.exit(f"error: constraints.txt lacks {', '.join(sorted(missing))}, for {what}")


def _pinned() -> set[str]:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {_name(pin) for pin in pins}


def _name(entry: str) -> str:
    """Return the name before the pin as an index writes it: in lower case, with hyphens."""
    return re.sub(r"[-_.]+", "-", entry.partition("==")[0]).lower()


if __name__ == "__main__":
    sys.exit(main())
