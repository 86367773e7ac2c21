#!/usr/bin/env bash
# Rules of the tree: paths named in ARCHITECTURE.md and the glossary exist, dependencies point down only, no file is past 800 lines.
set -euo pipefail
cd "$(dirname "$0")/.."
fail=0

for map in ARCHITECTURE.md docs/glossary.md; do
  while read -r path; do
    [ -e "$path" ] || { echo "check-tree: $map names \`$path\`, which does not exist"; fail=1; }
  done < <(grep -oE '`[a-z0-9_./-]+/[a-zA-Z0-9_./-]*`' "$map" | tr -d '`' | sort -u)
done

# layer of each folder: an edge may only point to a lower number
layer() {
  case "$1" in
    l1/fuzz) echo -1 ;;
    lvm/core | l1/light | kernels | worker/features) echo 0 ;;
    lvm | l1 | worker/circuit | worker/outer | coordinator/schedule | coordinator/queue | coordinator/telemetry) echo 1 ;;
    worker/zkvm | worker/agent | coordinator/service | l1/signer) echo 2 ;;
    worker | coordinator/client | coordinator/chaos | l1/parties) echo 3 ;;
    coordinator) echo 4 ;;
    bench | bench/peers) echo 5 ;;
    *) echo "check-tree: no layer for $1" >&2; exit 1 ;;
  esac
}
folder() {
  case "$1" in
    assay-lvm-core) echo lvm/core ;;
    assay-l1-fuzz) echo l1/fuzz ;;
    assay-l1-light) echo l1/light ;;
    assay-chaos) echo coordinator/chaos ;;
    assay-schedule) echo coordinator/schedule ;;
    assay-queue) echo coordinator/queue ;;
    assay-service) echo coordinator/service ;;
    assay-telemetry) echo coordinator/telemetry ;;
    assay-client) echo coordinator/client ;;
    assay-agent) echo worker/agent ;;
    assay-l1-parties) echo l1/parties ;;
    assay-worker-circuit) echo worker/circuit ;;
    assay-worker-outer) echo worker/outer ;;
    assay-worker-features) echo worker/features ;;
    assay-l1-signer) echo l1/signer ;;
    assay-worker-zkvm) echo worker/zkvm ;;
    assay-*) echo "${1#assay-}" ;;
  esac
}
for manifest in $(git ls-files '*/Cargo.toml' | grep -v '^lvm/guest/'); do
  from=$(dirname "$manifest")
  for dependency in $(grep -oE '^assay-[a-z0-9-]+' "$manifest" | sort -u); do
    to=$(folder "$dependency")
    to_layer=$(layer "$to") || exit 1
    from_layer=$(layer "$from") || exit 1
    if [ "$to_layer" -ge "$from_layer" ]; then
      echo "check-tree: $from depends on $to: dependencies point down only"
      fail=1
    fi
  done
done

while read -r lines file; do
  [ "$lines" -le 800 ] || { echo "check-tree: $file has $lines lines (at most 800)"; fail=1; }
done < <(git ls-files '*.rs' '*.cu' '*.cuh' | xargs wc -l | awk '$2 != "total" { print $1, $2 }')

exit $fail
