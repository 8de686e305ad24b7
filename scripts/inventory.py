#!/usr/bin/env python
"""Writes what this environment consists of: a bill of materials, and the licence of each package.

usage: .venv/bin/python scripts/inventory.py FOLDER [--audit]

FOLDER gets sbom.cdx.json (CycloneDX 1.6, JSON) and licences.txt. With --audit each package is also
looked up among the known vulnerabilities; then the package index and its vulnerability service must
be reachable, and the exit code is 1 if something was found or could not be looked up. The tools
for it are installed into a temporary environment, by the hashes of scripts/hashes/tools.txt.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from write_hashes import FOLDER, install_tools

SBOM, LICENCES = "sbom.cdx.json", "licences.txt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--audit", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / LICENCES).write_text(list_of_licences(), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        try:
            tools = install_tools(Path(folder))
            (given.folder / SBOM).write_text(_bill_of_materials(tools), encoding="utf-8")
            if given.audit:
                _audit(tools)
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"error: {Path(error.cmd[0]).name} failed; see above\n")
            return 1
    print(f"written: {given.folder / SBOM}, {given.folder / LICENCES}")
    return 0


def _bill_of_materials(tools: Path) -> str:
    command = [tools / "cyclonedx-py", "environment", "--output-reproducible", "--sv", "1.6"]
    done = subprocess.run([*command, sys.executable], stdout=subprocess.PIPE, check=True)
    return json.dumps(tidied(json.loads(done.stdout)), indent=2) + "\n"


def tidied(bill: dict[str, Any]) -> dict[str, Any]:
    """Return the bill with each component once and without the paths of this machine.

    An editable install is found twice, the second time in the checkout itself, and it names the
    checkout's place.
    """
    once: dict[tuple[str, str], dict[str, Any]] = {}
    for component in bill["components"]:
        references = component.get("externalReferences", [])
        public = [one for one in references if not one["url"].startswith("file:")]
        rest = {key: value for key, value in component.items() if key != "externalReferences"}
        kept = rest | ({"externalReferences": public} if public else {})
        once.setdefault((component["name"], component["version"]), kept)
    names = {component["bom-ref"] for component in once.values()}
    links = [link for link in bill.get("dependencies", []) if link["ref"] in names]
    return bill | {"components": list(once.values()), "dependencies": links}


def _audit(tools: Path) -> None:
    sets = [path for path in sorted(FOLDER.glob("*.txt")) if path.stem != "tools"]
    files = [word for path in sets for word in ("--requirement", str(path))]
    subprocess.run(
        [tools / "pip-audit", "--strict", "--no-deps", "--disable-pip", *files], check=True
    )


def list_of_licences() -> str:
    """Return a line for each installed package: its name, version and licence."""
    found = {one.name.lower(): one for one in metadata.distributions()}
    lines = [f"{one.name} {one.version}: {licence_of(one)}\n" for _, one in sorted(found.items())]
    return "".join(lines)


def licence_of(package: metadata.Distribution) -> str:
    """Return what the package says of its licence: an expression if it can, else words."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return expression
    classifiers = about.get_all("Classifier") or []
    words = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License ::")]
    words = [word for word in words if word != "DFSG approved"]
    return ", ".join(words) or (about.get("License") or "unknown").strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
