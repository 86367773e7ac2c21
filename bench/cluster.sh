#!/usr/bin/env bash
# What the cluster costs: the same batch, first by `assay prove` in one process tree, then by a coordinator, Redis and a worker on
# the same machine, both from empty caches of finished stages. Prints seconds and ratio; the machine should do nothing else.
#
#   bench/cluster.sh PATH/TO/assay PATH/TO/assay-worker      on 2 cores about 40 minutes
set -euo pipefail
here=$(realpath "$(dirname "$0")")
assay=$(realpath "${1:?usage: bench/cluster.sh PATH/TO/assay PATH/TO/assay-worker}")
worker=$(realpath "${2:?usage: bench/cluster.sh PATH/TO/assay PATH/TO/assay-worker}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

main() {
  cd "$work"
  local begun=$SECONDS
  ASSAY_CACHE="$work/artifacts" "$assay" prove sample --out "$work/out" >prove.log 2>&1 ||
    { tail -5 prove.log >&2; exit 1; }
  embedded=$((SECONDS - begun))
  grep -h '^  *[a-z].* s$\|seconds' prove.log | tail -20 || true
  echo "embedded: $embedded s"
  KILLS=0 WORKERS=1 "$here/../scripts/e2e-cluster.sh" "$assay" "$worker" 1 | tee cluster.log
  cluster=$(sed -n 's/.*is settled \([0-9]*\) s after.*/\1/p' cluster.log)
  echo "cluster: $cluster s, $(awk "BEGIN { printf \"%+.1f\", ($cluster / $embedded - 1) * 100 }") % against the embedded path"
}

main
exit
