# What the end-to-end scripts share; sourced, not run. Gives them the folder $work, which is kept if they fail, and counts what passed.
#
# Processes in `pid`, by name, are ended with the script.
e2e=$(basename "$0" .sh)
work=$(mktemp -d)
passed=0
started=$SECONDS
declare -A pid

cleanup() {
  local code=$? name
  for name in "${!pid[@]}"; do kill -9 "${pid[$name]}" 2>/dev/null || true; done
  if [ "$code" = 0 ]; then rm -rf "$work"; else echo "$e2e: logs and results are kept in $work"; fi
}
trap cleanup EXIT

say() { echo "$e2e [$((SECONDS - started)) s]: $*"; }
pass() { passed=$((passed + 1)); say "ok: $*"; }
# To standard error: also where a command's output is taken.
fail() { { say "FAILED: $*"; echo "$passed passed, 1 failed"; } >&2; exit 1; }

free_port() {
  local port
  while port=$(shuf -i 20000-32000 -n 1) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# wait_for SECONDS WHAT COMMAND…
wait_for() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$until" ] || fail "$what"
    sleep 0.5
  done
}
