#!/usr/bin/env bash
# Builds sppark.cu against the sources of the crates sppark and blst of bench/peers, for the GPU of this machine or ASSAY_PEER_ARCH
# (90): half a minute. The last line of stdout is the program.
#
#   bench/peers/gpu/build.sh FOLDER     needs nvcc in PATH, g++ and python3; the crates are fetched if they are not there
set -euo pipefail
folder=$1
cd "$(dirname "$0")/../../.."
arch=${ASSAY_PEER_ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)}
: "${arch:?the compute capability: no nvidia-smi tells it, and ASSAY_PEER_ARCH is not set}"

cargo fetch --quiet --locked --manifest-path bench/peers/Cargo.toml >&2
# Where cargo keeps the sources of the two crates.
read -r sppark blst < <(cargo metadata --locked --offline --format-version 1 --manifest-path bench/peers/Cargo.toml |
  python3 -c '
import json, os, sys
at = {p["name"]: os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"]}
print(at["sppark"], at["blst"])')

mkdir -p "$folder"
cc -c -o "$folder/blst.o" "$blst/blst/build/assembly.S" # the host's arithmetic
# The runtime of CUDA is linked statically; nvcc of PyPI keeps it beside itself.
libraries=$(dirname "$(dirname "$(command -v nvcc)")")
nvcc -std=c++17 -O3 -gencode "arch=compute_$arch,code=sm_$arch" -DFEATURE_BN254 -DTAKE_RESPONSIBILITY_FOR_ERROR_MESSAGE \
  -Xcompiler -Wno-unused-function -I"$sppark/sppark" -I"$blst/blst/src" -L"$libraries/lib" -L"$libraries/lib64" \
  -o "$folder/sppark" bench/peers/gpu/sppark.cu "$sppark/sppark/util/all_gpus.cpp" "$folder/blst.o" >&2
echo "$folder/sppark"
