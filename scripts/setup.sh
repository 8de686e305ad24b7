#!/usr/bin/env bash
# Makes .venv at the project's root and installs the project into it. Quick when run again.
# usage: scripts/setup.sh [EXTRAS]
# EXTRAS: of atari, box2d, envpool, minigrid, mujoco, report, video, zstd, dev (for the tests), with commas
set -euo pipefail
cd "$(dirname "$0")/.."

extra="${1:-}"
python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: Python 3.11 or newer is needed; name one by PYTHON=/path/to/python3.11 $0" >&2
    exit 1
fi

hashes=(-r scripts/hashes/core.txt)
for name in ${extra//,/ }; do
    if ! grep -qx "$name =" setup.cfg || [ ! -f "scripts/hashes/$name.txt" ]; then
        echo "error: there is no extra $name; see the top of $0" >&2
        exit 1
    fi
    hashes+=(-r "scripts/hashes/$name.txt")
done

wanted="$(cat setup.cfg pyproject.toml constraints.txt scripts/setup.sh scripts/hashes/*.txt | cksum)"
wanted="$wanted ${extra}"
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
install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
# What is installed already, such as a GPU build of torch, is kept if it fits. All else is taken only with
# a SHA-256 that scripts/hashes/ has; torch by its version, since each kind of GPU has a build of its own.
"${install[@]}" --require-hashes --no-deps "${hashes[@]}" || {
    echo "error: not every package could be had as scripts/hashes/ has it. If your package index builds" \
        "packages itself, install without this check: .venv/bin/pip install -c constraints.txt" \
        "-e '.${extra:+[$extra]}'" >&2
    exit 1
}
"${install[@]}" -c constraints.txt torch
# Nothing is fetched here, whatever pip is set to: what the steps above have not brought is an error. The
# build takes the setuptools that they have brought.
PIP_CONFIG_FILE=/dev/null "${install[@]}" --isolated --no-index --no-build-isolation \
    --editable ".${extra:+[$extra]}" || {
    echo "error: scripts/hashes/ lacks what pip names above; scripts/write_hashes.py writes it" >&2
    exit 1
}
echo "$wanted" >"$stamp"
