// How fast this GPU multiplies: the yardstick of bench/gpu.sh. No result of these kernels is used.
#include "curve.cuh"

// 8 * rounds multiply-adds of 32 bits with 64-bit sums a thread, in 8 independent chains.
// Launch: any grid, block 256. Shared: none. Registers: at most 64.
extern "C" __global__ void __launch_bounds__(256) bench_integer_kernel(uint32_t* values, uint32_t rounds) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  uint64_t sums[8];
#pragma unroll
  for (uint32_t i = 0; i < 8; i++) sums[i] = values[thread] + i;
  const uint32_t factor = values[thread] | 1;
  for (uint32_t round = 0; round < rounds; round++) {
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) sums[i] += uint64_t(uint32_t(sums[i])) * factor;
  }
  uint64_t all = 0;
#pragma unroll
  for (uint32_t i = 0; i < 8; i++) all ^= sums[i];
  values[thread] = uint32_t(all ^ all >> 32);
}

// 2 * rounds Montgomery products a thread, in 2 independent chains.
// Launch: any grid, block 256. Shared: none. Registers: at most 128. Data: Montgomery, one element a thread.
extern "C" __global__ void __launch_bounds__(256) bench_product_kernel(Fr* values, uint32_t rounds) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  const Fr factor = load(values + thread);
  Fr a = factor, b = factor + factor;
#pragma unroll 1
  for (uint32_t round = 0; round < rounds; round++) a = a * factor, b = b * factor;
  values[thread] = a + b;
}
