#!/usr/bin/env bash
# Runs every test of a build folder and ends with one count: test.sh BUILD_DIR. Fails when any test fails, or none ran.
set -uo pipefail
cd "$(dirname "$0")/.."
build="$1"
passed=0
failed=0

# count NAME PASSED FAILED
count() {
  echo "$1: $2 passed, $3 failed"
  passed=$((passed + $2))
  failed=$((failed + $3))
}

reports="$build/test-reports"
rm -rf "$reports"
mkdir -p "$reports"

GTEST_OUTPUT="xml:$(realpath "$reports")/" ctest --test-dir "$build" --output-on-failure
unit_status=$?
read -r tests failures < <(python3 scripts/count_tests.py "$reports" --gtest)
count "unit" "$((tests - failures))" "$failures"
# A test program that crashed leaves no report, and corpus replays have none: ctest's own verdict counts too.
(( unit_status == 0 )) || (( failures > 0 )) || count "ctest" 0 1

python3 -m unittest discover -s tests/tidy -p '*_test.py' 2> "$reports/tidy.txt"
tidy_status=$?
cat "$reports/tidy.txt"
tidy_tests=$(sed -n 's/^Ran \([0-9]*\) test.*/\1/p' "$reports/tidy.txt")
count "structure" "$(( tidy_status == 0 ? ${tidy_tests:-0} : 0 ))" "$(( tidy_status == 0 ? 0 : 1 ))"

scripts/e2e.sh --junitxml="$reports/e2e.xml"
e2e_status=$?
read -r tests failures < <(python3 scripts/count_tests.py "$reports/e2e.xml")
count "end to end" "$((tests - failures))" "$failures"
(( e2e_status == 0 )) || (( failures > 0 )) || count "end-to-end run" 0 1

echo "$passed passed, $failed failed"
(( failed == 0 && passed > 0 ))
