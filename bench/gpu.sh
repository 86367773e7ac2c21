#!/usr/bin/env bash
# The kernels on this machine's NVIDIA GPU, one command: correctness under compute-sanitizer, 1,000 identical runs, then figures.
#
#   bench/gpu.sh [LOG_MIN] [LOG_MAX]      sizes 2^LOG_MIN (16) to 2^LOG_MAX (24); writes out/gpu.md
#
# Needs a driver of CUDA 13 (580 or later; with the checked-in PTX alone 520), Rust, g++. nvcc: the one in PATH, else the one of
# scripts/cuda-toolchain.sh, else the checked-in PTX. Without compute-sanitizer it stops, unless ASSAY_WITHOUT_SANITIZER=1:
# then the report says so. With nvcc, sppark's sums on the same GPU come last (bench/peers/gpu; its crates are fetched). Builds
# assay-kernels alone, not the zkVM.
set -euo pipefail
cd "$(dirname "$0")/.."
least=${1:-16}
most=${2:-24}
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/assay/target-gpu}"

command -v nvidia-smi >/dev/null || { echo "gpu: no nvidia-smi: this machine has no NVIDIA driver" >&2; exit 1; }
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | grep -q . || { echo "gpu: no GPU" >&2; exit 1; }
if ! command -v nvcc >/dev/null; then
  [ -x /usr/local/cuda/bin/nvcc ] && PATH="/usr/local/cuda/bin:$PATH"
fi
if ! command -v nvcc >/dev/null; then
  if tools=$(scripts/cuda-toolchain.sh); then PATH="$tools:$PATH"; else echo "gpu: no nvcc: the checked-in PTX is used" >&2; fi
fi

cargo build --release --locked -p assay-kernels --features cuda --example gpu
gpu="$CARGO_TARGET_DIR/release/examples/gpu"
mkdir -p out
report=out/gpu.md
{
  echo "# GPU: $(date -u +%Y-%m-%d), $(git rev-parse --short HEAD)"
  echo
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
  echo
} >"$report"

if command -v compute-sanitizer >/dev/null || [ -x /usr/local/cuda/bin/compute-sanitizer ]; then
  sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  for tool in memcheck racecheck synccheck initcheck; do
    echo "gpu: compute-sanitizer $tool"
    log="out/gpu-$tool.log"
    # Two streams share the pool of memory: also whether all work lies between reserving and giving back.
    options=()
    if [ "$tool" = memcheck ]; then options=(--track-stream-ordered-races all); fi
    "$sanitizer" --tool "$tool" "${options[@]}" --error-exitcode 9 "$gpu" check >"$log" 2>&1 ||
      { tail -40 "$log"; echo "gpu: $tool FAILED, see $log" >&2; exit 1; }
    echo "* compute-sanitizer $tool: clean, $(grep -c '^ok:' "$log") checks" >>"$report"
  done
elif [ "${ASSAY_WITHOUT_SANITIZER:-0}" = 1 ]; then
  echo "* compute-sanitizer: NOT RUN, it is not installed" | tee -a "$report"
else
  echo "gpu: no compute-sanitizer (the CUDA toolkit has it); ASSAY_WITHOUT_SANITIZER=1 goes on without" >&2
  exit 1
fi
"$gpu" check >out/gpu-check.log || { tail -5 out/gpu-check.log; echo "gpu: FAILED" >&2; exit 1; }
echo "* without sanitizer: $(grep -c '^ok:' out/gpu-check.log) checks" >>"$report"
"$gpu" repeat 1000 | grep '^ok:' | sed 's/^ok:/*/' >>"$report"

# Milliseconds, ratios and, where the driver tells the power, joules an operation; sums and proofs without and with tables.
echo >>"$report"
"$gpu" figures "$least" "$most" >>"$report"

# sppark's sum next to ours on the same inputs and the same GPU; the program refuses a sum that is not ours.
{
  echo
  if ! command -v nvcc >/dev/null; then
    echo "sppark: NOT RUN, there is no nvcc"
  elif ! sppark=$(bench/peers/gpu/build.sh out/peers-gpu 2>out/gpu-sppark.log | tail -1); then
    echo "sppark: NOT RUN, it does not build here (out/gpu-sppark.log)"
  else
    echo "| operation | GPU, ms | sppark 0.1.16, same GPU, ms | ratio |"
    echo "|---|---|---|---|"
    for ((log = least; log <= most; log += 2)); do
      "$gpu" inputs "$log" out/gpu-inputs && "$sppark" out/gpu-inputs || echo "| MSM G1 2^$log uniform | FAILED | | |"
    done
    rm -f out/gpu-inputs
  fi
} >>"$report"
cat "$report"
