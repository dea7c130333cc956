#!/usr/bin/env bash
# Installs what packages.txt lists: packages.sh [GROUP ...] (groups: test, lint, fuzz). Does nothing when all are there.
set -euo pipefail
cd "$(dirname "$0")/.."
groups=" $* "
want=()
missing=0
installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
lines=()
while IFS= read -r line; do
  line="${line%%#*}"
  [[ -z "${line// }" ]] && continue
  if [[ "$line" == *:* ]]; then
    group="${line%%:*}"
    [[ "$groups" == *" $group "* ]] || continue
    line="${line#*:}"
  fi
  lines+=("$line")
done < packages.txt
for line in "${lines[@]}"; do
  found=0
  IFS='|' read -ra names <<< "$line"
  for name in "${names[@]}"; do
    if installed "${name// }"; then found=1; break; fi
  done
  (( found )) || { missing=1; break; }
done
(( missing )) || exit 0
sudo=""
if [[ $EUID -ne 0 ]]; then
  command -v sudo >/dev/null || { echo "packages.sh: packages are missing and there is neither root nor sudo" >&2; exit 1; }
  sudo=sudo
fi
$sudo apt-get update -q
for line in "${lines[@]}"; do
  pick=""
  IFS='|' read -ra names <<< "$line"
  for name in "${names[@]}"; do
    name="${name// }"
    # What it prints tells, not its status, which is 0 for a name that other packages merely refer to.
    if [[ -n "$(apt-cache show "$name" 2>/dev/null)" ]]; then pick="$name"; break; fi
  done
  [[ -n "$pick" ]] || { echo "packages.sh: none of '$line' is offered by this distribution (Debian 12 and Ubuntu 24.04 are supported)" >&2; exit 1; }
  want+=("$pick")
done
# env, so that it also reaches apt through sudo
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${want[@]}"
