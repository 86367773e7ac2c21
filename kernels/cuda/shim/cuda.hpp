// What the kernels need of CUDA C++, on the host. See fibers.hpp.
#pragma once
#include "ptx.hpp"
#include "shared.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __constant__

#define __syncthreads() shim::block_barrier(__LINE__)
#define __syncwarp() shim::warp_operation(shim::WarpOp::Sync, ~0u, 0, 0, __LINE__)
#define __shfl_sync(mask, value, lane) shim::warp_operation(shim::WarpOp::Shuffle, mask, value, lane, __LINE__)
#define __shfl_up_sync(mask, value, by) shim::warp_operation(shim::WarpOp::ShuffleUp, mask, value, by, __LINE__)
#define __shfl_xor_sync(mask, value, by) shim::warp_operation(shim::WarpOp::ShuffleXor, mask, value, by, __LINE__)
#define __ballot_sync(mask, flag) shim::warp_operation(shim::WarpOp::Ballot, mask, (flag) ? 1 : 0, 0, __LINE__)
#define __match_any_sync(mask, value) shim::warp_operation(shim::WarpOp::Match, mask, value, 0, __LINE__)
#define __popc(x) uint32_t(__builtin_popcount(x))
#define __ffs(x) __builtin_ffs(int(x))

inline uint32_t atomicAdd(uint32_t* at, uint32_t value) {
  const uint32_t before = *at;
  *at = before + value;
  return before;
}
inline uint32_t atomicMax(uint32_t* at, uint32_t value) {
  const uint32_t before = *at;
  *at = before > value ? before : value;
  return before;
}

using shim::Shared;
#define SHARED_ARRAY(T, name, N)                \
  static shim::Storage<T, N> name##_storage;    \
  const Shared<T> name = name##_storage.view()
#define SHARED_DYNAMIC(T, name, count) const Shared<T> name = shim::dynamic<T>(count)

#define PTX3(op, d, a, b) (d) = shim::ptx::run<shim::ptx::parse(op)>(a, b)
#define PTX4(op, d, a, b, c) (d) = shim::ptx::run<shim::ptx::parse(op)>(a, b, c)
