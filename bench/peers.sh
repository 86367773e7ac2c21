#!/usr/bin/env bash
# The kernels on the CPU next to arkworks, halo2curves and sppark, in one process and turn by turn: a Markdown table.
#
#   bench/peers.sh [G1 [G2 [NTT [ROUNDS]]]]     sizes as logarithms (16,18,20 14,16 16,18,20), `-` for none; rounds (5, half from 2^20 on)
#
# About three minutes on two idle cores (reckoned from processor times of smaller sizes), after the build; writes out/peers.md. Needs
# Rust and g++. Builds `assay-kernels` and the peers alone, by the lock file of bench/peers. As many threads for each as the machine
# has, or RAYON_NUM_THREADS.
set -euo pipefail
cd "$(dirname "$0")/.."
sizes=("${1:-16,18,20}" "${2:-14,16}" "${3:-16,18,20}" "${4:-5}")
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/assay/target}"
export NVCC=off # else sppark's build script takes a CUDA compiler in PATH, and links CUDA

cargo build --release --locked --manifest-path bench/peers/Cargo.toml
mkdir -p out
{
  echo "$(date -u +%Y-%m-%d), $(git describe --always --dirty), \`bench/peers.sh ${sizes[*]}\`"
  echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, $(rustc --version | cut -d' ' -f1-2)," \
    "$(g++ --version | head -1)"
  echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
  echo
  "$CARGO_TARGET_DIR/release/assay-peers" "${sizes[@]}"
  echo
  echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
} | tee out/peers.md
