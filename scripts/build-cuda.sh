#!/usr/bin/env bash
# Builds `assay`, `assay-worker` and the kernels' example `gpu` for NVIDIA GPUs, on a machine that need not have one: the compiler comes
# from PyPI (scripts/cuda-toolchain.sh) unless CUDA_HOME names a CUDA 13 toolkit. The runtime library is linked statically: where the
# binaries run they need a driver and nothing else of CUDA, and without a driver the CPU does everything.
#
#   scripts/build-cuda.sh [FOLDER]     puts the stripped binaries into FOLDER (default out/cuda), prints their sizes and what is in them
#
# CUDA_ARCHS: machine code for these GPUs (default 80,89-real,90-real,100-real: A100, 4090/L40S, H100/H200, B200; one without
#   -real also has PTX, from which drivers compile for later ones). One alone builds in a quarter of the time.
# ASSAY_CPU: instructions of the CPU (default x86-64-v3, for binaries that travel; `native` shares the ordinary build cache).
# A cold build takes an hour on two cores; on the ordinary cache the zkVM is compiled once more, because a build tool of its GPU
# crates changes the features of others: half an hour with one architecture.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-out/cuda}")
cpu=${ASSAY_CPU:-x86-64-v3}
export CUDA_ARCHS=${CUDA_ARCHS:-80,89-real,90-real,100-real}
export SP1_CUDA_ENABLED=1

scripts/setup.sh
if [ -z "${CUDA_HOME:-}" ]; then
  tools=$(scripts/cuda-toolchain.sh)
  CUDA_HOME=$(dirname "$tools")
  # The wheels' names are not those that linkers and CMake look for. Without a libcudart.so the static library is taken.
  ln -sfn lib "$CUDA_HOME/lib64"
  ln -sf libcudart_static.a "$CUDA_HOME/lib/libcudart.a"
  PATH="$(realpath "$tools/../../../../../../bin"):$PATH"
fi
export CUDA_HOME CUDA_PATH=$CUDA_HOME CUDACXX=$CUDA_HOME/bin/nvcc PATH="$CUDA_HOME/bin:$PATH"
[ -x "$CUDACXX" ] || { echo "build-cuda: no nvcc in $CUDA_HOME/bin: CUDA_HOME should be a CUDA 13 toolkit" >&2; exit 1; }

if [ "$cpu" = native ]; then
  export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/assay/target}"
else
  export RUSTFLAGS="-C target-cpu=$cpu" CARGO_TARGET_DIR="$HOME/.cache/assay/target-cuda"
fi
cargo build --release --locked -p assay-coordinator -p assay-worker --features cuda
cargo build --release --locked -p assay-kernels --features cuda --example gpu

mkdir -p "$folder"
for built in assay assay-worker examples/gpu; do
  name=$(basename "$built")
  strip -o "$folder/$name" "$CARGO_TARGET_DIR/release/$built"
  ! ldd "$folder/$name" | grep -E 'libcuda|libnv' || { echo "build-cuda: $name needs a library of CUDA" >&2; exit 1; }
  echo "$name: $(stat -c %s "$folder/$name" | numfmt --to=iec)"
done
cuobjdump --list-elf "$folder/assay-worker" | grep -oE 'sm_[0-9]+[a-z]?' | sort | uniq -c | sed 's/^/machine code: /'
# There is none if every architecture was asked for with -real.
{ cuobjdump --list-ptx "$folder/assay-worker" 2>/dev/null | grep -oE 'sm_[0-9]+[a-z]?' || echo none; } | sort | uniq -c | sed 's/^/PTX: /'
