#!/usr/bin/env bash
# Builds bitcoind and bitcoin-cli, without a wallet, from the source that comes with the crate libbitcoinkernel-sys: the node
# has the consensus code of the in-process back end, and nothing is fetched but from the crate registry.
# Idempotent; 15 to 25 CPU minutes the first time. The last line of stdout is the path of bitcoind.
#
#   export BITCOIND_EXE="$(scripts/bitcoind.sh)"
#   scripts/bitcoind.sh --path      # only prints where it is, or would be
#
# ASSAY_CACHE_DIR: where it is kept (default ~/.cache/assay), under bitcoind/<hash of source, flags and build>/bin.
# ASSAY_BITCOIND_JOBS: compilers at a time (default: all cores), about 1 GB of memory each.
# Needs cmake, g++ and the headers of Boost (scripts/setup.sh installs them), cargo, flock.
set -euo pipefail
cd "$(dirname "$0")/.."

crate=libbitcoinkernel-sys
version=0.4.1
# The registry's checksum, as in Cargo.lock.
crate_sha256=345d18a1ce19a1becfcaaa066e3a60e9c7813ef5c23ea8c20704ca4ba1a46339
# Of the unpacked folder bitcoin/: what tree_sha256 prints.
source_sha256=3b7c9137a256856e5d737333df70e05acfe6acdd01b0d9e301031a8a0f48cd38
flags=(
  -DCMAKE_BUILD_TYPE=Release
  -DBUILD_DAEMON=ON -DBUILD_CLI=ON
  -DBUILD_TESTS=OFF -DBUILD_BENCH=OFF -DBUILD_FUZZ_BINARY=OFF
  -DBUILD_TX=OFF -DBUILD_UTIL=OFF -DBUILD_BITCOIN_BIN=OFF
  -DENABLE_WALLET=OFF -DENABLE_EXTERNAL_SIGNER=OFF -DENABLE_IPC=OFF
  -DWITH_EMBEDDED_ASMAP=OFF -DWITH_CCACHE=OFF
)

fail() { echo "bitcoind: $*" >&2; exit 1; }

# Names and contents of all files below a folder, in the order of their bytes.
tree_sha256() {
  (cd "$1" && find . ! -type d -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
}

# build SOURCE FOLDER: compiles in FOLDER/build and puts the two binaries, stripped, into FOLDER/bin.
# Chained, because `set -e` does not hold inside a condition.
build() {
  cmake -S "$1" -B "$2/build" "${flags[@]}" &&
    cmake --build "$2/build" --target bitcoind bitcoin-cli -j "${ASSAY_BITCOIND_JOBS:-$(nproc)}" &&
    mkdir "$2/bin" &&
    strip -o "$2/bin/bitcoind" "$2/build/bin/bitcoind" &&
    strip -o "$2/bin/bitcoin-cli" "$2/build/bin/bitcoin-cli"
}

# One line for every twentieth part of a build whose output comes in.
progress() {
  awk -F'[][%]' '/^\[ *[0-9]+%\]/ && $2 - last >= 5 { last = $2 - $2 % 5; print "bitcoind: built " last " %"; fflush() }' >&2
}

# What makes a different binary gives another folder; comments do not.
key=$(printf '%s\n' "$source_sha256" "${flags[*]}" "$(declare -f build)" | sha256sum | cut -c1-16)
cache="${ASSAY_CACHE_DIR:-$HOME/.cache/assay}/bitcoind"
bitcoind="$cache/$key/bin/bitcoind"
case "${1:-}" in
  --path) echo "$bitcoind"; exit 0 ;;
  '') ;;
  *) fail "unknown argument '$1' (none, or --path)" ;;
esac
if [ -x "$bitcoind" ]; then echo "$bitcoind"; exit 0; fi

locked=$(grep -A3 -Fx "name = \"$crate\"" Cargo.lock | sed -nE 's/^(version|checksum) = "(.*)"$/\2/p' | xargs)
[ "$locked" = "$version $crate_sha256" ] ||
  fail "Cargo.lock holds $crate $locked, this script is for $version $crate_sha256; change both together"
for tool in cargo cmake g++ strip flock; do
  command -v $tool >/dev/null || fail "$tool is missing (scripts/setup.sh installs the native packages)"
done

unpacked() { compgen -G "${CARGO_HOME:-$HOME/.cargo}/registry/src/*/$crate-$version/bitcoin" | head -1; }
tree=$(unpacked) || { cargo fetch --locked >&2 && tree=$(unpacked); } || fail "no unpacked $crate $version"
got=$(tree_sha256 "$tree")
[ "$got" = "$source_sha256" ] ||
  fail "$tree has the hash $got, expected $source_sha256; it was changed: remove $(dirname "$tree") and run this again"

mkdir -p "$cache"
# One build at a time; what a killed one left behind is in nobody's use. The compilers do not inherit the lock.
exec 9>"$cache/lock"
flock 9
if [ ! -x "$bitcoind" ]; then
  rm -rf "$cache"/tmp.*
  folder=$(mktemp -d "$cache/tmp.XXXXXX")
  trap 'rm -rf "$folder"' EXIT
  echo "bitcoind: compiling $crate $version into $cache/$key, 15 to 25 CPU minutes" >&2
  # The job server of a calling make is not for this build.
  unset MAKEFLAGS MFLAGS MAKELEVEL
  if ! build "$tree" "$folder" 9>&- 2>&1 | tee "$cache/build.log" | progress; then
    tail -20 "$cache/build.log" >&2
    fail "the build failed; all of its output is in $cache/build.log"
  fi
  rm -rf "$folder/build"
  "$folder/bin/bitcoind" -version | sed -n 1p >&2
  chmod 755 "$folder"
  sync "$folder/bin/bitcoind" "$folder/bin/bitcoin-cli"
  mv "$folder" "$cache/$key"
fi
echo "$bitcoind"
