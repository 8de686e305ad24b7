#!/usr/bin/env bash
# Sets up .venv if need be, and runs format, lint, types and tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh atari,box2d,dev,minigrid,report,video

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
