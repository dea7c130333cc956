#!/usr/bin/env bash
# Runs every libFuzzer target of a build folder for SECONDS_EACH (default 30) on its corpus: fuzz.sh BUILD_DIR.
set -euo pipefail
cd "$(dirname "$0")/.."
for target in "$1"/*_fuzz; do
  name=$(basename "$target")
  scratch=$(mktemp -d)
  echo "== $name"
  "$target" -max_total_time="${SECONDS_EACH:-30}" -rss_limit_mb=2048 -timeout=10 "$scratch" "tests/fuzz/$name"
  rm -rf "$scratch"
done
