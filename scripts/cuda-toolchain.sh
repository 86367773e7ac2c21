#!/usr/bin/env bash
# Installs nvcc and the tools that read its output, about 490 MB, into a folder of their own: no root, no driver, no GPU.
# Idempotent: a folder with the right versions is left alone. The last line of stdout is the folder to put in PATH.
#
#   export PATH="$(scripts/cuda-toolchain.sh):$PATH"
#
# ASSAY_CUDA: the folder (default ~/.cache/assay/cuda). Needs Python 3.9 or later with venv and pip, and g++.
set -euo pipefail

folder="${ASSAY_CUDA:-$HOME/.cache/assay/cuda}"
# One compiler for everybody: another one would change the PTX and the register counts. Driver 580 or later runs its code.
packages=(
  nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85
  nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cuobjdump==13.2.78 nvidia-cuda-nvdisasm==13.2.78   # read machine code; not in 13.0 on their own
  nvidia-nvtx==13.0.85 cmake==3.31.6                             # the zkVM's kernels; Debian 12's cmake does not know CUDA's C++20
)
stamp="$folder/installed"

if [ "$(cat "$stamp" 2>/dev/null)" != "${packages[*]}" ]; then
  command -v python3 >/dev/null || { echo "cuda-toolchain: python3 is missing" >&2; exit 1; }
  command -v g++ >/dev/null || { echo "cuda-toolchain: g++ is missing (scripts/setup.sh installs it)" >&2; exit 1; }
  echo "cuda-toolchain: installing into $folder" >&2
  rm -rf "$folder"
  mkdir -p "$(dirname "$folder")"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir "${packages[@]}" >&2
  echo "${packages[*]}" >"$stamp"
fi

bin=$(echo "$folder"/lib/python3*/site-packages/nvidia/cu13/bin)
[ -x "$bin/nvcc" ] || { echo "cuda-toolchain: no nvcc in $bin; remove $folder and run this again" >&2; exit 1; }
"$bin/nvcc" --version | tail -1 >&2
echo "$bin"
