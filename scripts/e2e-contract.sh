#!/usr/bin/env bash
# The contract on Bitcoin as its parties run it (l1/README.md, "The contract on a regtest node"): a real bitcoind (regtest), three
# signers, an operator and two vigilantes, each a process, and two proved batches, each claimed in an epoch of its own. Both claims are
# made and, after their challenge periods, accepted; meanwhile the operator and a vigilante are killed with kill -9 and started again.
# Then the same two batches on a trunk of their own: its operator claims the first and is killed for good, a backup takes over, with the
# signers' consent, and claims the second. In the end of both, `assay l1 sync` rebuilds the state from the node alone.
#
#   scripts/e2e-contract.sh PATH/TO/assay PATH/TO/bitcoind [FOLDER]      about three minutes once the batches are proved
#
# FOLDER keeps the two proved batches (default ~/.cache/assay/contract); they are proved first if they are not there, which takes 40
# minutes and goes on where it was if it is ended. Remove it after a change of guest programs, wrap circuit or parameters: a batch
# that was handed to an operator is never replaced.
set -euo pipefail

usage="usage: scripts/e2e-contract.sh PATH/TO/assay PATH/TO/bitcoind [FOLDER]"
assay=$(realpath "${1:?$usage}")
bitcoind=$(realpath "${2:?$usage}")
cli=$(dirname "$bitcoind")/bitcoin-cli
proved=$(realpath -m "${3:-$HOME/.cache/assay/contract}")
batches=$proved/batches
source "$(dirname "$(realpath "$0")")/e2e-common.sh"

# background NAME COMMAND…: a process, its output appended to NAME.log.
background() {
  local name=$1
  shift
  "$@" >>"$name.log" 2>&1 &
  pid[$name]=$!
  disown
}

# stop NAME: kill -9; returns when its locks and its port are free.
stop() {
  kill -9 "${pid[$1]}"
  while kill -0 "${pid[$1]}" 2>/dev/null; do sleep 0.05; done
  unset "pid[$1]"
}

bitcoin() { "$cli" -datadir="$work/node" -regtest -rpcport="$rpc_port" "$@"; }
mine() { bitcoin generatetodescriptor "$1" 'raw(51)' >/dev/null; }
# The line "name  value" of what `assay verify` and `assay l1 keys` print.
field() { sed -nE "s/^ *$1( = | +)\"?([0-9a-f]{64})\"?.*/\2/p" "$2" | head -1; }

# Two batches in a row, to a Groth16 proof; at once where that has been done.
prove() {
  local batch
  for batch in sample sample:2; do
    ASSAY_CACHE="$proved/artifacts" "$assay" prove "$batch" --until groth16 --out "$proved/out" --l1-batches "$batches" \
      >prove.log 2>&1 || fail "$batch is not proved: $(tail -1 prove.log)"
  done
  result=$(echo "$proved"/out/1-2-*)
}

policy() {
  "$assay" verify "$result" >verify.txt
  "$assay" l1 keys --secret operator.secret --trunk-id "$trunk" >operator.txt
  "$assay" l1 keys --secret sink.secret --trunk-id "$trunk" >sink.txt
  cat >policy.toml <<END
trunk_id = "$trunk"
operator_key = "$(field operator_key operator.txt)"
sink = "$(field operator_key sink.txt)"
start_commitment = "$(field 'state before' verify.txt)"
code_root = "$(field 'code root' verify.txt)"
verifier_commitment = "$(field 'verifying key' verify.txt)"
verifier = "none"
claims = 1
collateral_sat = 1000000
challenge_deposit_sat = 20000
slashed_to_sink_sat = 400000
assert_words = 1
assert_hashes = 1
cadence_blocks = 2
collateral_blocks = 75
challenge_blocks = 10
assert_blocks = 8
disprove_blocks = 8
claim_timeout_blocks = 18
sink_blocks = 200
handover_blocks = 5
END
}

# serve NAME FOLDER: a signer, under the policy of the operator that it signs for.
serve() {
  background "$1" "$assay" l1 signer serve --dir "$1/$2" --identity "$1/id" --peers peers.toml --policy "$rules" \
    --listen "127.0.0.1:${ports[$1]}"
}

# Identities, and a signer of its own for each of three attesters.
signers() {
  local name port
  echo "operator = \"$("$assay" l1 signer identity --identity collector.id | tail -1)\"" >peers.toml
  for name in s1 s2 s3; do
    port=$(free_port)
    printf '[[signer]]\nname = "%s"\nkey = "%s"\naddress = "127.0.0.1:%s"\n' \
      "$name" "$("$assay" l1 signer identity --identity "$name/id" | tail -1)" "$port" >>peers.toml
    ports[$name]=$port
  done
  for name in s1 s2 s3; do serve "$name" signer; done
}

# coin ARGUMENTS…: has coins sent to a party; prints the one that opens an epoch, if there is one.
coin() {
  "$assay" l1 fund "${node[@]}" --policy "$rules" --purse purse "$@" 2>>fund.log || fail "no coins ($*): $(tail -1 fund.log)"
}

# attesters COMMAND ARGUMENTS…: a command of the operator's side of signing.
attesters() { "$assay" l1 signer "$1" --identity collector.id --peers peers.toml --policy "$rules" "${@:2}"; }

# collect PLACE NUMBER FUNDING NEXT ARGUMENTS…: the signers sign epoch NUMBER, which is opened by the coin FUNDING and announces the spec
# NEXT, for the operator $secret; PLACE is that of its files.
collect() {
  local name=epochs/000$1
  attesters propose --secret "$secret" --epoch "$2" --funding "$3" --announce "$4" "${@:5}" --out "$name.proposal" \
    >>collect.log 2>&1 || fail "propose: $(tail -1 collect.log)"
  attesters collect --proposal "$name.proposal" --out "$name.signatures" >>collect.log 2>&1 || fail "collect: $(tail -1 collect.log)"
}

# Coins for everybody, and two epochs; a spec is always announced by the epoch before it.
sign() {
  local coins=() specs=() epoch
  coins=("$(coin --secret operator.secret)")
  for epoch in 1 2; do
    coins+=("$(coin --secret operator.secret --epoch $epoch --coins 0 --data-sat 0)")
    specs+=("$(attesters spec --secret operator.secret --epoch $epoch --funding "${coins[$epoch]}")")
  done
  for party in v1 v2; do coin --secret "$party.secret" --party vigilante >>fund.log; done
  collect 0 0 "${coins[0]}" "${specs[0]}"
  collect 1 1 "${coins[1]}" "${specs[1]}" --previous epochs/0000.proposal
}

party() {
  case $1 in
    operator) background operator "$assay" l1 operator "${common[@]}" --dir operator --secret operator.secret --batches "$batches" ;;
    backup) background backup "$assay" l1 backup "${common[@]}" --dir backup --secret watch.secret --operator-secret backup.secret \
      --batches "$batches" --vk "$result/vk.json" ;;
    *) background "$1" "$assay" l1 vigilante "${common[@]}" --dir "$1" --secret "$1.secret" --vk "$result/vk.json" ;;
  esac
}

# Mines a block every second until COMMAND succeeds; LIMIT blocks at most.
mine_until() {
  local limit=$1 what=$2 blocks
  shift 2
  for ((blocks = 0; blocks < limit; blocks++)); do
    if "$@"; then return 0; fi
    for name in "${running[@]}"; do
      kill -0 "${pid[$name]}" 2>/dev/null || fail "$name has ended by itself: $(tail -1 "$name.log")"
    done
    mine 1
    sleep 1
  done
  fail "$what within $limit blocks: $(tail -3 watch.json)"
}

# claims_are N STAGE: at least N claims stand so.
claims_are() {
  "$assay" l1 watch "${common[@]}" --once --json >watch.json 2>watch.log || return 1
  [ "$(grep -o "\"stage\": *\"$2\"" watch.json | wc -l)" -ge "$1" ]
}

# Whoever has a node and the epochs' files comes to the state after the second batch, the last claim's new root.
synced() {
  "$assay" verify "$proved"/out/3-4-* >verify-2.txt
  "$assay" l1 sync --from-genesis "${seen[@]}" --confirmations 1 --vk "$result/vk.json" --dir reader --json >sync.json 2>sync.log ||
    fail "the state is not rebuilt: $(tail -1 sync.log)"
  grep -q "\"commitment\": \"$(field 'state after' verify-2.txt)\"" sync.json || fail "another state is rebuilt: $(cat sync.json)"
  pass "a node alone gives the state that the last claim signed"
}

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# start FOLDER: a trunk of its own, on the same node, up to the operator's first claim.
start() {
  mkdir -p "$work/$1/epochs"
  cd "$work/$1"
  trunk=$(random)
  rules=policy.toml secret=operator.secret running=(operator v1 v2)
  seen=("${node[@]}" --epochs epochs --policy policy.toml --peers peers.toml --start-height "$(($(bitcoin getblockcount) + 1))")
  common=("${seen[@]}" --finality 3)
  policy
  signers
  sign
  pass "three signers have signed the contract of two epochs"
  for name in "${running[@]}"; do party "$name"; done
  mine_until 60 "no claim" claims_are 1 claimed
  pass "the first batch is claimed"
}

# Both batches by one operator, in an epoch each.
two_epochs() {
  local name
  start operated
  for name in operator v1; do
    stop "$name"
    party "$name"
  done
  mine_until 120 "the claims are not accepted" claims_are 2 accepted
  pass "both epochs' claims are accepted; operator and a vigilante were killed on the way"
  grep -l ALARM v1.log v2.log && fail "a vigilante is alarmed by right claims"
  pass "no vigilante was alarmed"
  synced
  for name in operator v1 v2 s1 s2 s3; do stop "$name"; done
}

# The second batch by a backup, after the operator was killed for good.
taken_over() {
  local name previous=(--previous epochs/0000.proposal --handover backup/watch/handover.json)
  start stopped
  stop operator
  "$assay" l1 keys --secret backup.secret --trunk-id "$trunk" >backup.txt
  sed "s/^operator_key = .*/operator_key = \"$(field operator_key backup.txt)\"/" policy.toml >backup-policy.toml
  common+=(--policy backup-policy.toml)
  seen+=(--policy backup-policy.toml)
  coin --secret watch.secret --party vigilante >>fund.log
  for name in v1 v2; do stop "$name"; done
  running=(v1 v2 backup)
  for name in "${running[@]}"; do party "$name"; done
  mine_until 80 "the backup does not ask for a hand-over" test -s backup/watch/handover.json
  for name in s1 s2 s3; do
    stop "$name"
    "$assay" l1 signer hand-over --dir "$name/signer" --new-dir "$name/next" --policy policy.toml "${previous[@]}" >>collect.log 2>&1 ||
      fail "$name does not consent: $(tail -1 collect.log)"
  done
  rules=backup-policy.toml secret=backup.secret
  for name in s1 s2 s3; do serve "$name" next; done
  collect 2 1 "$(coin --secret backup.secret --epoch 1 "${previous[@]}")" "$(random)" "${previous[@]}"
  pass "the operator has stopped, and the signers have signed an epoch of the backup"
  mine_until 60 "the backup does not claim" claims_are 1 claimed
  for name in backup v1; do
    stop "$name"
    party "$name"
  done
  mine_until 80 "the backup's claim is not accepted" claims_are 2 accepted
  grep -h ALARM v1.log v2.log | grep -v 'was ended by a timeout' && fail "a vigilante is alarmed by more than the trunk's end"
  pass "the backup has taken over, and its claim is accepted; it and a vigilante were killed on the way"
  synced
}

main() {
  say "in $work"
  cd "$work"
  declare -A ports
  mkdir node
  rpc_port=$(free_port)
  node=(--bitcoind "http://127.0.0.1:$rpc_port" --cookie "$work/node/regtest/.cookie")
  background node "$bitcoind" -regtest -datadir="$work/node" -rpcport="$rpc_port" -listen=0
  wait_for 30 "the node does not start" bitcoin getblockchaininfo
  prove
  pass "two batches are proved"
  two_epochs
  taken_over
  echo "$passed passed, 0 failed"
}

main
exit
