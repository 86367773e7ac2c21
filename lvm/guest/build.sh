#!/bin/bash
# Rebuilds the guest programs, byte for byte, from Debian's rustc-web.
#
#   build.sh           build, and replace elf/*.elf and elf/*.elf.sha256
#   build.sh --check   build, and compare with elf/*.elf.sha256; nothing is replaced
#
# Needs the Debian packages rustc-web, cargo-web and rust-web-src, version 1.96, and rustup's rust-lld or Debian's lld.
# Where they are missing the committed programs are used as they are. Exit code: 0, 1 differs, 2 cannot build here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
guest=$PWD
root=$(cd ../.. && pwd)
# Cargo hashes the absolute path of a crate outside the workspace (../core) into its symbols: the place is fixed.
stage=/tmp/assay-guest-build
programs=(block fold vectors)
target=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/assay/t-guest}
rust_version=1.96.0

cannot() {
    echo "build.sh: $1" >&2
    echo "build.sh: the committed programs in lvm/guest/elf need no rebuilding; to rebuild them, on Debian 12:" >&2
    echo "    apt-get install rustc-web cargo-web rust-web-src lld" >&2
    exit 2
}

[[ -x /usr/bin/rustc && -x /usr/bin/cargo ]] || cannot "no Debian rustc and cargo (packages rustc-web, cargo-web)"
found=$(/usr/bin/rustc --version | cut -d' ' -f2)
[[ $found == "$rust_version" ]] || cannot "rustc $rust_version wanted (package rustc-web), found $found"
[[ -d /usr/src/rustc-$rust_version/library/std ]] || cannot "no sources of std (package rust-web-src)"

# The linkers agree on every loaded byte; --strip and --build-id=none leave nothing else that could differ.
linker=
for candidate in /usr/bin/ld.lld "$HOME"/.rustup/toolchains/stable-*/lib/rustlib/*/bin/rust-lld; do
    if [[ -x $candidate ]]; then linker=$candidate; break; fi
done
[[ -n $linker ]] || cannot "no lld (package lld)"
flavour=()
[[ $(basename "$linker") == rust-lld ]] && flavour=(-C linker-flavor=gnu-lld)

flags=(
    -C passes=lower-atomic
    -C panic=abort
    -C linker="$linker" "${flavour[@]}"
    -C link-arg=--image-base=2013265920
    -C link-arg=--build-id=none
    # Without line numbers in panic messages a comment or a blank line does not change a program's key.
    -Zlocation-detail=none
    --cfg 'getrandom_backend="custom"'
    -C llvm-args=-misched-prera-direction=bottomup
    -C llvm-args=-misched-postra-direction=bottomup
    --remap-path-prefix="$stage=/assay"
    --remap-path-prefix="${CARGO_HOME:-$HOME/.cargo}=/cargo"
    --remap-path-prefix="$target=/target"
    --remap-path-prefix="/usr/src/rustc-$rust_version=/rustc"
)
encoded=$(printf '%s\x1f' "${flags[@]}")
export CARGO_ENCODED_RUSTFLAGS=${encoded%$'\x1f'}
export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_DIR=$target
unset RUSTFLAGS RUSTC_WRAPPER CARGO_BUILD_RUSTC_WRAPPER

exec 9> "$stage.lock"
flock 9
rm -rf "$stage"
mkdir -p "$stage/lvm"
trap 'rm -rf "$stage"' EXIT
cp -p "$root/Cargo.toml" "$stage/"
cp -rp "$root/lvm/core" "$root/lvm/guest" "$stage/lvm/"
cd "$stage/lvm/guest"

# One program at a time: built together they would share their features.
for program in "${programs[@]}"; do
    /usr/bin/cargo build --release --locked --target "$PWD/riscv64im-zkvm-elf.json" -Zjson-target-spec \
        -Zbuild-std=std,panic_abort -Zbuild-std-features=compiler-builtins-mem -p "assay-guest-$program"
done

differs=0
for program in "${programs[@]}"; do
    built=$target/riscv64im-zkvm-elf/release/assay-guest-$program
    sum=$(sha256sum "$built" | cut -d' ' -f1)
    cd "$guest"
    if [[ ${1:-} == --check ]]; then
        committed=$(cut -d' ' -f1 "elf/$program.elf.sha256")
        if [[ $sum == "$committed" ]]; then
            echo "$program.elf $sum as committed"
        else
            echo "$program.elf differs: committed $committed, built $sum" >&2
            differs=1
        fi
    else
        install -m 644 "$built" "elf/$program.elf"
        (cd elf && sha256sum "$program.elf" > "$program.elf.sha256")
        echo "$program.elf $sum"
    fi
done
exit $differs
