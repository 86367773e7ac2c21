#!/usr/bin/env bash
# A cluster as an operator runs it: Redis (append-only file on), one coordinator, two workers. It proves the sample batch to a
# settled Groth16 proof while each of the four processes is killed with kill -9 at a random moment and started again.
#
#   scripts/e2e-cluster.sh PATH/TO/assay PATH/TO/assay-worker [SEED]     on 2 cores about 30 minutes
#
#   KILLS=0    nothing is killed: the plain run, whose time bench/cluster.sh compares with `assay prove`
#   WORKERS=1  one worker for everything, as on a machine of its own; only without kills
#   BATCH=…    another batch
#
# SEED chooses order and moments of the kills; it is printed. The folder of keys (zkVM keys, Groth16 parameters) is the user's.
set -euo pipefail

usage="usage: scripts/e2e-cluster.sh PATH/TO/assay PATH/TO/assay-worker [SEED]"
assay=$(realpath "${1:?$usage}")
worker=$(realpath "${2:?$usage}")
seed=${3:-$RANDOM}
RANDOM=$seed
kills=${KILLS:-6}
workers=${WORKERS:-2}
[ "$workers" = 2 ] || [ "$kills" = 0 ] || { echo "WORKERS=1 needs KILLS=0" >&2; exit 2; }
batch=${BATCH:-sample}
source "$(dirname "$(realpath "$0")")/e2e-common.sh"

# start NAME: (again) one of the processes, its log appended to NAME.log. Two workers share the memory of one machine: one proves
# shards, the other one everything else.
start() {
  local redis="redis://127.0.0.1:$redis_port" store="file://$work/store"
  case $1 in
    redis)
      redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$work/redis" --appendonly yes --appendfsync everysec \
        --maxmemory 2gb --maxmemory-policy noeviction --save "" >>redis.log 2>&1 &
      ;;
    coordinator)
      "$assay" coordinator --redis "$redis" --store "$store" --dir coordinator --out out --listen "127.0.0.1:$api_port" \
        >>coordinator.log 2>&1 &
      ;;
    shards)
      "$worker" --redis "$redis" --store "$store" --cpu --work-dir shards --name shards --memory 15 --kinds shard,reduce \
        >>shards.log 2>&1 &
      ;;
    single)
      "$worker" --redis "$redis" --store "$store" --cpu --work-dir single --name single >>single.log 2>&1 &
      ;;
    others)
      "$worker" --redis "$redis" --store "$store" --cpu --work-dir others --name others --memory 18 \
        --kinds execute,block,fold,wrap,groth16 >>others.log 2>&1 &
      ;;
  esac
  pid[$1]=$!
  # The shell need not tell that it was killed.
  disown
}

alive() {
  for name in "${!pid[@]}"; do
    kill -0 "${pid[$name]}" 2>/dev/null || fail "$name has ended by itself: $(tail -1 "$name.log")"
  done
}

# Tasks of the batch that are done; nothing while nobody answers.
tasks_done() { "$assay" status "$id" 2>/dev/null | sed -n 's/^ *tasks *\([0-9]*\) done.*/\1/p' | head -1 || true; }
phase() { "$assay" status "$id" --json | grep -o '"phase": *"[a-z]*"' | head -1 | grep -o '[a-z]*"$' | tr -d '"'; }
ended() { [[ $(phase) =~ ^(settled|failed|cancelled)$ ]]; }

main() {
  say "seed $seed, $kills kills, in $work"
  cd "$work"
  mkdir redis store
  redis_port=$(free_port)
  api_port=$(free_port)
  export ASSAY_URL="http://127.0.0.1:$api_port"

  # Clusters never draw parameters by themselves.
  "$assay" setup >setup.log 2>&1 || fail "assay setup: $(tail -1 setup.log)"
  start redis
  wait_for 20 "redis does not start: see redis.log" redis-cli -p "$redis_port" ping
  start coordinator
  wait_for 600 "the coordinator does not print a key" grep -q '^  first key' coordinator.log
  ASSAY_KEY=$(sed -n 's/^  first key *\([^ ]*\).*/\1/p' coordinator.log | head -1)
  export ASSAY_KEY
  if [ "$workers" = 1 ]; then
    start single
  else
    start shards
    start others
  fi
  wait_for 600 "the workers do not register" bash -c "'$assay' workers | grep -c 'single\\|shards\\|others' | grep -q '$workers'"

  before=$SECONDS
  "$assay" submit "$batch" --json >submit.json || fail "the batch is refused"
  id=$(grep -o '"id": *[0-9]*' submit.json | head -1 | grep -o '[0-9]*')
  say "batch $id submitted"
  # Of whoever connects anew after every kill, this one sees each event once.
  "$assay" watch "$id" --patience 3600 >watch.log 2>&1 &
  watch=$!

  for ((number = 0; number < kills; number++)); do
    # Everybody comes up once before anybody does for the second time.
    [ $((number % 4)) -ne 0 ] || mapfile -t order < <(printf '%s\n' coordinator shards others redis | sort -R --random-source=<(yes "$RANDOM"))
    victim=${order[$((number % 4))]}
    # Spread over the batch, each at a random moment of its part: the later ones meet finished tasks.
    pause=$((5 + RANDOM % 60))
    while at=$(tasks_done) && [ "${at:-0}" -lt $((2 * number)) ]; do
      ! ended || break 2
      alive
      sleep 3
    done
    sleep "$pause"
    alive
    kill -9 "${pid[$victim]}"
    say "killed $victim, ${at:-?} tasks done"
    sleep $((RANDOM % 5))
    start "$victim"
  done
  [ "$number" -ge 4 ] || [ "$number" = "$kills" ] || fail "the batch ended before everybody had been killed once"
  [ "$number" = 0 ] || pass "$number processes killed and started again"

  until ended; do alive; sleep 5; done
  [ "$(phase)" = settled ] || fail "the batch has ended as $(phase): $("$assay" status "$id")"
  pass "batch $id is settled $((SECONDS - before)) s after it was submitted"
  wait "$watch" || fail "watch does not end well: $(tail -1 watch.log)"
  pass "a watcher that was there all the time saw the end"

  "$assay" fetch "$id" --output result --json >fetch.json || fail "the result does not verify"
  "$assay" verify result >verify.log || fail "verify refuses what fetch has accepted"
  pass "fetch and verify accept the result"
  say "$(tr -d ' \n' <fetch.json | grep -o '"cost":{"missing":[0-9]*,"all":{[^}]*}')"
  grep -q '"missing": *0' fetch.json || fail "receipts are missing, so nobody knows what was proved twice"
  grep -q '"repeated": *0' fetch.json || fail "a finished task was proved again: see result/receipts.json"
  pass "finished tasks proved again: 0"
  "$assay" submit "$batch" --json >again.json && grep -q "\"id\": *$id\b" again.json || fail "the same submission is another batch"
  pass "the same submission again is the same batch"
  echo "$passed passed, 0 failed"
}

main
exit
