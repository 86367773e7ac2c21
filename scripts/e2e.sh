#!/usr/bin/env bash
# The main job as a user runs it, in a folder of its own: two batches in a row, the first one killed on the way and
# started again, both verified from their folders alone, and every kind of tampering refused.
#
#   scripts/e2e.sh PATH/TO/assay
#
# Caches (keys, Groth16 parameters) are the user's; finished proofs are not: each run proves anew.
set -euo pipefail

assay=$(realpath "${1:?usage: scripts/e2e.sh PATH/TO/assay}")
work=$(mktemp -d)
passed=0
started=$SECONDS
trap 'rm -rf "$work"' EXIT

say() { echo "e2e [$((SECONDS - started)) s]: $*"; }
pass() { passed=$((passed + 1)); say "ok: $*"; }
fail() { say "FAILED: $*"; echo "$passed passed, 1 failed"; exit 1; }

export ASSAY_CACHE="$work/artifacts"
cd "$work"

say "first batch, killed while it proves"
"$assay" prove sample --out out >first.log 2>&1 &
child=$!
# Wait until the cache has its first proof, so that there is something to resume from; then kill without warning.
while kill -0 "$child" 2>/dev/null && ! grep -q "compressed proof of run 1" first.log; do sleep 2; done
kill -9 "$child" 2>/dev/null || true
wait "$child" 2>/dev/null || true
pass "killed after the block proofs"

"$assay" prove sample --out out 2>&1 | tee second.log || fail "the first batch did not finish after the restart"
grep -qi 'resumed' second.log || fail "the restart did not say that it resumed"
pass "first batch proved and settled after kill -9"

say "second batch"
before=$SECONDS
"$assay" prove sample:2 --out out 2>&1 | tee third.log || fail "the second batch did not finish"
pass "second batch proved and settled on the first in $((SECONDS - before)) s"

batches=(out/*/proof.json)
[ ${#batches[@]} -eq 2 ] || fail "expected 2 proved batches, found ${#batches[@]}"
for proof in "${batches[@]}"; do
  folder=$(dirname "$proof")
  alone="$work/alone-$(basename "$folder")"
  cp -r "$folder" "$alone"
  (cd / && "$assay" verify "$alone") || fail "verify refused $folder"
  pass "verify accepts $(basename "$folder") from its folder alone"
  cp "$alone/proof.bin" "$work/proof.bin"
  printf '\x01' | dd of="$alone/proof.bin" bs=1 seek=40 conv=notrunc status=none
  cmp -s "$alone/proof.bin" "$work/proof.bin" && printf '\x02' | dd of="$alone/proof.bin" bs=1 seek=40 conv=notrunc status=none
  if (cd / && "$assay" verify "$alone") >/dev/null 2>&1; then fail "verify accepted a corrupted proof"; fi
  pass "verify refuses a corrupted proof"
done

echo "$passed passed, 0 failed"
