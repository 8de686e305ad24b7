#!/usr/bin/env bash
# Makes .venv at the project's root and installs the project into it. Quick when run again.
# usage: scripts/setup.sh [EXTRAS]
# EXTRAS: of atari, box2d, minigrid, report, video, zstd, dev (for the tests), with commas
set -euo pipefail
cd "$(dirname "$0")/.."

extra="${1:-}"
python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: Python 3.11 or newer is needed; name one by PYTHON=/path/to/python3.11 $0" >&2
    exit 1
fi

wanted="$(cat setup.cfg pyproject.toml constraints.txt | cksum) ${extra}"
stamp=".venv/.installed${extra:+-$extra}"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

if [ ! -x .venv/bin/python ]; then
    echo "making .venv with $("$python" --version)" >&2
    "$python" -m venv .venv || {
        echo "error: no virtual environment could be made; on Debian: apt install python3-venv" >&2
        exit 1
    }
fi
echo "installing into .venv (the first time this takes a minute or more)" >&2
# torch first: what is installed already, such as a GPU build, is kept if it fits.
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
    --editable ".${extra:+[$extra]}"
echo "$wanted" >"$stamp"
