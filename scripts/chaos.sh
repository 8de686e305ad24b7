#!/usr/bin/env bash
# Breaks things on purpose. Needs no server: it starts its own.
#   scripts/chaos.sh --minutes M --seed S    training under a storm of faults, and a verdict
#   scripts/chaos.sh --sentinels ...         the same behind three sentinels, with fail-overs
#   scripts/chaos.sh --full [--seed S]       every row of the fault matrix, the long ones too
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh dev

if [ "${1:-}" != --full ]; then
    PYTHONPATH=tests exec .venv/bin/python -m chaos.run "$@"
fi
seed="$RANDOM"
[ "${2:-}" != --seed ] || seed="$3"
echo "the fault matrix, seed $seed"
exec .venv/bin/python -m pytest --full --chaos-seed "$seed" -m fault --timeout 1200
