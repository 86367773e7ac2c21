// Poseidon2 over Fr, width 3, and the Merkle trees of the wrap proof. Parameters and oracle: src/poseidon2.rs, src/merkle.rs.
// One thread permutes one state; the round constants lie in constant memory, all threads read the same one.
#include "curve.cuh"
#include "poseidon2_constants.cuh"

namespace {

struct State {
  Fr x[3];

  __device__ __forceinline__ void full_round(const uint32_t* constants) {
#pragma unroll
    for (int i = 0; i < 3; i++) x[i] = fifth_power(x[i] + constant(constants + 8 * i));
    external();
  }
  __device__ __forceinline__ void external() {
    const Fr sum = x[0] + x[1] + x[2];
#pragma unroll
    for (int i = 0; i < 3; i++) x[i] = x[i] + sum;
  }
  __device__ __forceinline__ void permute() {
    external();
#pragma unroll 1
    for (int round = 0; round < 4; round++) full_round(POSEIDON2_FULL + 24 * round);
#pragma unroll 1
    for (int round = 0; round < 56; round++) {
      x[0] = fifth_power(x[0] + constant(POSEIDON2_PARTIAL + 8 * round));
      const Fr sum = x[0] + x[1] + x[2];
      x[0] = sum + x[0];
      x[1] = sum + x[1];
      x[2] = sum + x[2].doubled();
    }
#pragma unroll 1
    for (int round = 4; round < 8; round++) full_round(POSEIDON2_FULL + 24 * round);
  }

 private:
  static __device__ __forceinline__ Fr constant(const uint32_t* words) {
    Fr r;
#pragma unroll
    for (int i = 0; i < 8; i++) r.w[i] = words[i];
    return r;
  }
  static __device__ __forceinline__ Fr fifth_power(const Fr& x) { return x.squared().squared() * x; }
};

__device__ __forceinline__ Fr compress(const Fr& left, const Fr& right) {
  State state{{left, right, Fr::zero()}};
  state.permute();
  return state.x[0];
}

// sum values[i] 2^(31 i) over at most 8 values below 2^31, in Montgomery form.
__device__ __forceinline__ Fr pack(const uint32_t* values, uint32_t count) {
  Fr packed;
  uint32_t value = count > 0 ? values[0] : 0;
#pragma unroll
  for (uint32_t i = 0; i < 8; i++) {
    const uint32_t next = i + 1 < count ? values[i + 1] : 0;
    packed.w[i] = value >> i | (i < 7 ? next << (31 - i) : 0);
    value = next;
  }
  return Fr::from_integer(packed);
}

}  // namespace

// Permutes `count` states of 3 elements.
// Launch: grid ceil(count / 128), block 128. Shared: none. Registers: at most 128.
// Data: Montgomery, in place. Oracle: src/poseidon2.rs::permute_one
extern "C" __global__ void __launch_bounds__(128) poseidon2_permute_kernel(Fr* states, uint32_t count) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= count) return;
  State state{{load(states + 3 * thread), load(states + 3 * thread + 1), load(states + 3 * thread + 2)}};
  state.permute();
  for (int i = 0; i < 3; i++) states[3 * thread + i] = state.x[i];
}

// Hashes rows of 31-bit values; digests from `height` to `padded` are zero.
// Launch: grid ceil(padded / 128), block 128. Shared: none. Registers: at most 128.
// Data: rows one after another, digests Montgomery. Oracle: src/poseidon2/sponge.rs::hash_one
extern "C" __global__ void __launch_bounds__(128)
    poseidon2_rows_kernel(const uint32_t* rows, Fr* digests, uint32_t height, uint32_t width, uint32_t padded) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= padded) return;
  State state{{Fr::zero(), Fr::zero(), Fr::zero()}};
  if (thread < height) {
    const uint32_t* row = rows + uint64_t(thread) * width;
    for (uint32_t at = 0; at < width; at += 16) {
      const uint32_t left = width - at;
      state.x[0] = pack(row + at, left < 8 ? left : 8);
      if (left > 8) state.x[1] = pack(row + at + 8, left < 16 ? left - 8 : 8);
      state.permute();
    }
  }
  digests[thread] = state.x[0];
}

// One level of a tree: nodes[to + i] = compress(nodes[from + 2 i], nodes[from + 2 i + 1]), i < count.
// Launch: grid ceil(count / 128), block 128. Shared: none. Registers: at most 128.
// Data: Montgomery. Oracle: src/poseidon2/sponge.rs::compress_one
extern "C" __global__ void __launch_bounds__(128)
    poseidon2_level_kernel(Fr* nodes, uint32_t from, uint32_t to, uint32_t count) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= count) return;
  nodes[to + thread] = compress(load(nodes + from + 2 * thread), load(nodes + from + 2 * thread + 1));
}

// The top of a tree in one launch: from nodes[from..from + count], a power of two, all levels above, lowest first, to
// nodes[from + count..].
// Launch: grid 1, block max(32, count / 2) at most 128. Shared: count * 32 B. Registers: at most 128.
// Data: Montgomery. Oracle: src/merkle.rs
extern "C" __global__ void __launch_bounds__(128) poseidon2_top_kernel(Fr* nodes, uint32_t from, uint32_t count) {
  SHARED_DYNAMIC(Fr, level, count);
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) level.set(i, load(nodes + from + i));
  __syncthreads();
  for (uint32_t to = from + count; count > 1; to += count) {
    count /= 2;
    Fr digest = Fr::zero();
    if (threadIdx.x < count) digest = compress(level.get(2 * threadIdx.x), level.get(2 * threadIdx.x + 1));
    __syncthreads();
    if (threadIdx.x < count) {
      level.set(threadIdx.x, digest);
      nodes[to + threadIdx.x] = digest;
    }
    __syncthreads();
  }
}
