#!/usr/bin/env bash
# The main job as a user runs it, in a folder of its own: batches in a row, the first one killed on the way and started
# again twice, each verified from its folder alone, and a changed byte in each of the five files
# that verification reads refused.
#
#   scripts/e2e.sh PATH/TO/assay [BATCHES]     BATCHES: 1 or 2 (default); on 2 cores about 20 minutes each
#
# The folder of keys (zkVM keys, Groth16 parameters, shards of a run that was aborted) is the user's; finished proofs are not.
set -euo pipefail

assay=$(realpath "${1:?usage: scripts/e2e.sh PATH/TO/assay [BATCHES]}")
batches_wanted=${2:-2}
snarkjs="$HOME/.cache/assay/snarkjs"
source "$(dirname "$(realpath "$0")")/e2e-common.sh"

# Starts the first batch, waits for a line of its progress, then kills it without warning.
kill_at() {
  "$assay" prove sample --out out >killed.log 2>&1 &
  pid[prove]=$!
  while kill -0 "${pid[prove]}" 2>/dev/null && ! grep -q "$1" killed.log; do sleep 1; done
  kill -9 "${pid[prove]}" 2>/dev/null || fail "the first batch ended before it could be killed: $(tail -1 killed.log)"
  wait "${pid[prove]}" 2>/dev/null || true
  unset "pid[prove]"
  pass "killed at '$1'"
}

# Read whole before it runs: a change of this file does not disturb a run.
main() {
  export ASSAY_CACHE="$work/artifacts"
  cd "$work"

  kill_at "prove shards [1-9]/"
  # Any shard: those of a run that was aborted earlier are taken from the folder of keys.
  kill_at "^> fold proof .*prove shards [1-9]/"
  grep -q '^resumed: compressed proof of run 1' killed.log && fail "the second start found a proof that was never finished"

  "$assay" prove sample --out out 2>&1 | tee second.log || fail "the first batch did not finish after the restart"
  grep -q '^resumed: compressed proof of run 1' second.log || fail "the restart did not say that it resumed"
  pass "first batch proved and settled after two kill -9"

  if [ "$batches_wanted" -ge 2 ]; then
    say "second batch"
    before=$SECONDS
    "$assay" prove sample:2 --out out 2>&1 | tee third.log || fail "the second batch did not finish"
    pass "second batch proved and settled on the first in $((SECONDS - before)) s"
  fi

  batches=(out/*/proof.json)
  [ ${#batches[@]} -eq "$batches_wanted" ] || fail "expected $batches_wanted proved batches, found ${#batches[@]}"
  for proof in "${batches[@]}"; do
    folder=$(dirname "$proof")
    alone="$work/alone-$(basename "$folder")"
    cp -r "$folder" "$alone"
    (cd / && "$assay" verify "$alone") || fail "verify refused $folder"
    pass "verify accepts $(basename "$folder") from its folder alone"
    for file in proof.bin proof.json public.json vk.json claim.json; do
      cp "$alone/$file" "$work/original"
      # Another value of the byte in the middle.
      at=$(($(stat -c %s "$alone/$file") / 2))
      now=$(dd if="$alone/$file" bs=1 skip=$at count=1 status=none | od -An -tx1 | tr -d " ")
      [ "$now" = 35 ] && other='6' || other='5'
      printf '%s' "$other" | dd of="$alone/$file" bs=1 seek=$at conv=notrunc status=none
      code=0
      (cd / && "$assay" verify "$alone") >/dev/null 2>&1 || code=$?
      [ "$code" = 1 ] || fail "verify of a changed $file: expected exit code 1, got $code"
      cp "$work/original" "$alone/$file"
    done
    (cd / && "$assay" verify "$alone") >/dev/null || fail "verify refused the restored folder"
    pass "verify refuses a changed byte in each of the five files it reads"
    if [ -d "$snarkjs" ]; then
      (cd "$alone" && node "$snarkjs/node_modules/snarkjs/build/cli.cjs" groth16 verify vk.json public.json proof.json) ||
        fail "snarkjs refused $folder"
      pass "snarkjs accepts $(basename "$folder")"
    else
      say "SKIPPED: snarkjs is not installed in $snarkjs (the kernels' tests install it)"
    fi
  done

  # The state from Bitcoin alone: no cache, no result but the terms of the epoch.
  last=$(ls out | grep '^[0-9]' | sort -n | tail -1)
  claim="out/$last/claim.json"
  "$assay" l1 sync --claim "$claim" --regtest-dir out/chain/bitcoin-regtest --confirmations 1 --dir reader --json >sync.json ||
    fail "the state cannot be rebuilt from Bitcoin: $(cat sync.json)"
  grep -q "\"executed\": $batches_wanted" sync.json || fail "expected $batches_wanted executed claims: $(cat sync.json)"
  commitment=$(sed -n 's/.*"new_commitment": *"\([0-9a-f]*\)".*/\1/p' "$claim" | head -1)
  grep -q "\"commitment\": \"$commitment\"" sync.json || fail "another state than $commitment: $(cat sync.json)"
  pass "$batches_wanted batches executed from Bitcoin alone end in the claimed state"

  echo "$passed passed, 0 failed"
}

main
exit
