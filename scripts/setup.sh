#!/usr/bin/env bash
# Installs the native packages that the build and the tests need. Idempotent; does nothing where all are present.
# Debian 12 and Ubuntu 24.04. Needs root or sudo only when a package is missing.
#
#   scripts/setup.sh             what building and proving need
#   scripts/setup.sh --tests     what the tests need too
set -euo pipefail

packages=(
  protobuf-compiler libprotobuf-dev   # the zkVM's task protocol is compiled from .proto files
  cmake g++ pkg-config                # Bitcoin Core's consensus engine is built from source
  libclang-dev clang                  # bindgen reads that engine's C header
)
if [ "${1:-}" = --tests ]; then
  packages+=(redis-server)            # the tests of the cluster start their own servers
  # The live page is tested in a browser. Ubuntu has none as a package; the test says there that it is skipped.
  for package in chromium chromium-driver; do
    if apt-cache show "$package" 2>/dev/null | grep -q '^Version: [0-9]' && ! grep -q '^ID=ubuntu' /etc/os-release; then
      packages+=("$package")
    fi
  done
fi
# The header-only Boost of the distribution: 1.74 on Debian 12 by default, 1.81 beside it; 1.83 on Ubuntu 24.04.
if ! ls /usr/include/boost/version.hpp >/dev/null 2>&1; then
  if apt-cache show libboost1.81-dev >/dev/null 2>&1; then packages+=(libboost1.81-dev); else packages+=(libboost-dev); fi
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "setup: this system has no apt-get; install the equivalents of: ${missing[*]}" >&2
    exit 1
  fi
  sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setup: run as root once, or install: ${missing[*]}" >&2; exit 1; }
    sudo=sudo
  fi
  echo "setup: installing ${missing[*]}"
  # The packages' services (redis-server) are not to run: tests start their own servers on free ports.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap '$sudo rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
  fi
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  case " ${missing[*]} " in
    *" redis-server "*) if [ -d /run/systemd/system ]; then $sudo systemctl disable --now --quiet redis-server; fi ;;
  esac
fi

if ! command -v cargo >/dev/null; then
  echo "setup: cargo is missing; install Rust (stable, 1.90 or later) with rustup and run this again" >&2
  exit 1
fi
