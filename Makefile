# The task file. CI calls the same targets (`.ci/run`). `make help` lists them.
#
# One build cache outside the checkout serves every clone; release is the only profile, because a second profile costs
# another cold build of the zkVM (about 15 minutes on 2 cores).
export CARGO_TARGET_DIR ?= $(HOME)/.cache/assay/target
# Property tests draw the same cases each time; another number draws others.
export PROPTEST_RNG_SEED ?= 1
BATCH ?= sample
BATCHES ?= 2
SECONDS ?= 60
ASSAY := $(CARGO_TARGET_DIR)/release/assay

.PHONY: help setup setup-tests build prove verify test test-slow test-node test-e2e test-cluster test-contract fuzz bitcoind lint clippy doc bench bench-peers cuda gpu cuda-gate guests ci

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install missing native packages (Debian 12, Ubuntu 24.04)
	@scripts/setup.sh

build: setup ## Build the binaries `assay` and `assay-worker`
	cargo build --release --locked -p assay-coordinator -p assay-worker

prove: build ## Prove BATCH (default: the first sample batch) and settle it on an in-process Bitcoin regtest
	$(ASSAY) prove $(BATCH)

verify: build ## Check the newest folder under out/
	$(ASSAY) verify "$$(ls -td out/*/proof.json | head -1 | xargs dirname)"

setup-tests: # What the tests need besides
	@scripts/setup.sh --tests

test: setup-tests ## All fast tests
	cargo test --release --locked --workspace --no-fail-fast
	cargo test --release --locked -p assay-kernels --features cuda --test cuda_shim --no-fail-fast
	cargo test --release --locked -p assay-kernels --features cuda --lib device::

test-slow: setup-tests bitcoind ## Tests that take minutes: zkVM proofs, the whole wrap circuit, a real Bitcoin node
	cargo test --release --locked --workspace -- --ignored --test-threads=1

bitcoind: setup ## Build bitcoind from the source in the crate registry (15 to 25 CPU minutes, once)
	scripts/bitcoind.sh

test-node: bitcoind ## Tests on a real bitcoind (regtest, one for each test): settlement, the contract's parties as processes, every attack
	BITCOIND_EXE="$$(scripts/bitcoind.sh)" cargo test --release --locked -p assay-l1 -p assay-l1-parties -- --ignored bitcoind

fuzz: setup-tests ## Every decoder of l1 on changed encodings, SECONDS (60) each (ASSAY_FUZZ_SEED=N: other ones)
	ASSAY_FUZZ_SECONDS=$(SECONDS) cargo test --release --locked -p assay-l1-light -p assay-l1 -p assay-l1-signer \
	  -p assay-l1-parties -- --nocapture changed

test-e2e: build ## The main job in a fresh folder: prove BATCHES (2) sample batches, kill and resume, verify
	scripts/e2e.sh $(ASSAY) $(BATCHES)

test-cluster: build setup-tests ## A real cluster over Redis proves a batch while its processes are killed (SEED=N replays)
	scripts/e2e-cluster.sh $(ASSAY) $(ASSAY)-worker $(SEED)

test-contract: build bitcoind ## The contract's parties as processes on a real bitcoind (two batches are proved first: 40 minutes, once)
	scripts/e2e-contract.sh $(ASSAY) "$$(scripts/bitcoind.sh)"

lint: ## Format, and the rules of the tree
	cargo fmt --all --check
	rustfmt --check --edition 2021 bench/peers/src/main.rs
	scripts/check-tree.sh

clippy: setup ## Clippy over everything (a cold run checks the whole zkVM: about 10 minutes)
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

doc: setup ## API documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps

bench: setup ## Criterion benches
	cargo bench --locked -p assay-bench

bench-peers: ## The kernels on the CPU next to arkworks, halo2curves and sppark (minutes; nothing of the zkVM is built)
	bench/peers.sh

cuda: ## Binaries for NVIDIA GPUs in out/cuda (no GPU needed; an hour once, CUDA_ARCHS=90-real is quicker)
	scripts/build-cuda.sh

gpu: ## The kernels on this machine's NVIDIA GPU: sanitizer, then figures
	bench/gpu.sh

cuda-gate: ## Install nvcc, hold the checked-in PTX and every kernel's registers and instructions against it
	scripts/cuda-toolchain.sh
	cargo test --release --locked -p assay-kernels --test cuda_shim compiler -- --include-ignored --test-threads=1

guests: ## Rebuild the guest programs and compare them with the committed ones (needs Debian's rustc-web)
	lvm/guest/build.sh --check

ci: ## What CI runs
	.ci/run
