// One fiber per CUDA thread, one block at a time, on one host thread.
//
// A fiber runs until it waits: for its warp (shuffle, ballot, __syncwarp) or for its block (__syncthreads). The order of
// blocks, warps and lanes is random; the seed is the caller's. Stricter than the hardware, on purpose:
// * every thread of the block must reach the same __syncthreads, in the same place of the source, and none may have exited;
// * all 32 lanes must reach the same warp operation (full masks only), and blocks are whole warps.
// Anything else ends the process with status 3 and one line on stderr.
#pragma once
#include <csetjmp>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <unistd.h>
#include <ucontext.h>
#include <vector>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

constexpr uint32_t WARP = 32;
constexpr size_t STACK_BYTES = 256 << 10;

[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "shim: block %u: ", blockIdx.x);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  fflush(stderr);
  _exit(3);
}

enum class Wait : uint8_t { Nothing, Warp, Block };
enum class WarpOp : uint8_t { Sync, Shuffle, ShuffleUp, ShuffleXor, Ballot, Match };

struct Fiber {
  jmp_buf context;
  bool started, done;
  Wait wait;
  WarpOp op;
  int line;             // where it waits
  uint32_t given;       // what the lane brings to a warp operation
  uint32_t parameter;   // source lane, distance or mask
  uint32_t taken;       // what it takes home
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<std::unique_ptr<char[]>> stacks;
  std::vector<uint32_t> warp_epochs;  // __syncwarp passed, for each warp
  std::function<void()> body;
  std::mt19937_64 random{1};
  jmp_buf scheduler;
  uint32_t current = 0;
  uint64_t epoch = 1;        // counts block barriers, and starts of blocks
  uint64_t block_start = 1;  // the epoch in which the running block started
  size_t dynamic_bytes = 0;
};
inline Machine machine;

inline void fiber_main() {
  machine.body();
  machine.fibers[machine.current].done = true;
  _longjmp(machine.scheduler, 1);
}

// Runs fiber `index` until it waits or ends.
__attribute__((noinline)) inline void resume(uint32_t index) {
  Fiber& fiber = machine.fibers[index];
  machine.current = index;
  threadIdx.x = index;
  if (_setjmp(machine.scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.context, 1);
  fiber.started = true;
  while (machine.stacks.size() <= index) machine.stacks.emplace_back(new char[STACK_BYTES]);
  ucontext_t start;
  getcontext(&start);
  start.uc_stack.ss_sp = machine.stacks[index].get();
  start.uc_stack.ss_size = STACK_BYTES;
  start.uc_link = nullptr;
  makecontext(&start, fiber_main, 0);
  setcontext(&start);
  fail("setcontext failed");
}

__attribute__((noinline)) inline void pause(Wait wait, int line) {
  Fiber& fiber = machine.fibers[machine.current];
  fiber.wait = wait;
  fiber.line = line;
  if (_setjmp(fiber.context) == 0) _longjmp(machine.scheduler, 1);
}

inline void block_barrier(int line) { pause(Wait::Block, line); }

inline uint32_t warp_operation(WarpOp op, uint32_t mask, uint32_t given, uint32_t parameter, int line) {
  if (mask != 0xffffffffu) fail("line %d: a warp operation with mask %08x: only full masks are supported", line, mask);
  Fiber& fiber = machine.fibers[machine.current];
  fiber.op = op;
  fiber.given = given;
  fiber.parameter = parameter;
  pause(Wait::Warp, line);
  return fiber.taken;
}

inline uint32_t outcome(const Fiber* lanes, uint32_t lane) {
  const Fiber& self = lanes[lane];
  uint32_t bits = 0;
  switch (self.op) {
    case WarpOp::Sync: return 0;
    case WarpOp::Shuffle: return lanes[self.parameter % WARP].given;
    case WarpOp::ShuffleUp: return lanes[lane >= self.parameter ? lane - self.parameter : lane].given;
    case WarpOp::ShuffleXor: return lanes[(lane ^ self.parameter) % WARP].given;
    case WarpOp::Ballot:
      for (uint32_t i = 0; i < WARP; i++) bits |= uint32_t(lanes[i].given != 0) << i;
      return bits;
    case WarpOp::Match:
      for (uint32_t i = 0; i < WARP; i++) bits |= uint32_t(lanes[i].given == self.given) << i;
      return bits;
  }
  fail("unknown warp operation");
}

// Runs the lanes of `warp` until each has ended or waits for the block.
inline void run_warp(uint32_t warp) {
  Fiber* lanes = &machine.fibers[warp * WARP];
  for (;;) {
    const uint32_t order = machine.random() % WARP;
    for (uint32_t i = 0; i < WARP; i++) {
      const uint32_t lane = i ^ order;
      if (!lanes[lane].done && lanes[lane].wait == Wait::Nothing) resume(warp * WARP + lane);
    }
    uint32_t waiting = 0, first = WARP;
    for (uint32_t lane = 0; lane < WARP; lane++) {
      if (lanes[lane].done || lanes[lane].wait != Wait::Warp) continue;
      waiting++;
      first = std::min(first, lane);
    }
    if (waiting == 0) return;
    for (uint32_t lane = 0; lane < WARP; lane++) {
      const bool here = !lanes[lane].done && lanes[lane].wait == Wait::Warp;
      if (!here || lanes[lane].op != lanes[first].op || lanes[lane].line != lanes[first].line)
        fail("divergent warp operation: lane %u of warp %u is at line %d, lane %u is not", first, warp,
             lanes[first].line, lane);
    }
    for (uint32_t lane = 0; lane < WARP; lane++) lanes[lane].taken = outcome(lanes, lane);
    if (lanes[0].op == WarpOp::Sync) machine.warp_epochs[warp]++;
    for (uint32_t lane = 0; lane < WARP; lane++) lanes[lane].wait = Wait::Nothing;
  }
}

inline void run_block() {
  const uint32_t threads = blockDim.x;
  machine.fibers.resize(threads);
  for (Fiber& fiber : machine.fibers) fiber.started = fiber.done = false, fiber.wait = Wait::Nothing;
  machine.warp_epochs.assign(threads / WARP, 0);
  machine.block_start = ++machine.epoch;
  std::vector<uint32_t> warps(threads / WARP);
  for (uint32_t i = 0; i < warps.size(); i++) warps[i] = i;
  for (;;) {
    std::shuffle(warps.begin(), warps.end(), machine.random);
    for (uint32_t warp : warps) run_warp(warp);
    uint32_t done = 0, waiting = threads;
    for (uint32_t i = 0; i < threads; i++) {
      if (machine.fibers[i].done) done++;
      else waiting = std::min(waiting, i);
    }
    if (done == threads) return;
    for (uint32_t i = 0; i < threads; i++) {
      if (machine.fibers[i].done || machine.fibers[i].line != machine.fibers[waiting].line)
        fail("divergent barrier: thread %u waits at line %d, thread %u does not", waiting,
             machine.fibers[waiting].line, i);
      machine.fibers[i].wait = Wait::Nothing;
    }
    machine.epoch++;
  }
}

// Runs `body` in every thread of a one-dimensional grid, blocks in random order.
inline void launch(uint32_t grid, uint32_t block, size_t dynamic_bytes, std::function<void()> body) {
  if (block == 0 || block % WARP != 0 || block > 1024) fail("a block of %u threads: expected whole warps, at most 1024", block);
  if (dynamic_bytes > 227 << 10) fail("%zu bytes of shared memory: the limit is 227 KiB", dynamic_bytes);
  gridDim.x = grid;
  blockDim.x = block;
  machine.body = std::move(body);
  machine.dynamic_bytes = dynamic_bytes;
  std::vector<uint32_t> blocks(grid);
  for (uint32_t i = 0; i < grid; i++) blocks[i] = i;
  std::shuffle(blocks.begin(), blocks.end(), machine.random);
  for (uint32_t index : blocks) {
    blockIdx.x = index;
    run_block();
  }
}

}  // namespace shim
