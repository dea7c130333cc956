#!/usr/bin/env bash
# clang-format in check mode, then clang-tidy over the release build's compile commands.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files 'src/*.h' 'src/*.cc' 'tests/*.cc' 'bench/*.cc')
clang-format --dry-run --Werror "${files[@]}"
mapfile -t units < <(git ls-files 'src/*.cc')
clang-tidy -p build/release --quiet "${units[@]}"
