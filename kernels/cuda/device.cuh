// What every kernel includes: shared memory and PTX on a device, or the host shim (shim/cuda.hpp) in their place.
#pragma once
#include <cstdint>

// Functions that are called rather than copied: rare or long ones, which would cost minutes of compilation.
#ifdef ASSAY_SHIM
#define OUT_OF_LINE
#include "shim/cuda.hpp"
#else
#define OUT_OF_LINE __noinline__

// An array in shared memory. Elements of 16 bytes and more lie in planes of 16 bytes, so that neighbours are read without
// bank conflicts. The shim's twin finds races.
template <class T>
struct Shared {
  static_assert(sizeof(T) % 16 == 0, "whole planes");
  static constexpr uint32_t PLANES = sizeof(T) / 16;
  uint4* base;
  uint32_t count;

  __device__ __forceinline__ Shared(uint4* base, uint32_t count) : base(base), count(count) {}
  __device__ __forceinline__ T get(uint32_t index) const {
    T value;
    uint4* words = reinterpret_cast<uint4*>(&value);
#pragma unroll
    for (uint32_t plane = 0; plane < PLANES; plane++) words[plane] = base[plane * count + index];
    return value;
  }
  __device__ __forceinline__ void set(uint32_t index, const T& value) const {
    const uint4* words = reinterpret_cast<const uint4*>(&value);
#pragma unroll
    for (uint32_t plane = 0; plane < PLANES; plane++) base[plane * count + index] = words[plane];
  }
};

template <>
struct Shared<uint32_t> {
  uint32_t* base;

  __device__ __forceinline__ Shared(uint4* base, uint32_t) : base(reinterpret_cast<uint32_t*>(base)) {}
  __device__ __forceinline__ uint32_t get(uint32_t index) const { return base[index]; }
  __device__ __forceinline__ void set(uint32_t index, uint32_t value) const { base[index] = value; }
  __device__ __forceinline__ uint32_t add(uint32_t index, uint32_t value) const { return atomicAdd(base + index, value); }
};

#define SHARED_ARRAY(T, name, N)                              \
  __shared__ uint4 name##_words[((N) * sizeof(T) + 15) / 16]; \
  const Shared<T> name(name##_words, N)
extern __shared__ uint4 dynamic_shared_words[];
#define SHARED_DYNAMIC(T, name, count) const Shared<T> name(dynamic_shared_words, count)

// One PTX instruction each; the carry flag ties neighbours together, so they are volatile and stand in chains.
#define PTX3(op, d, a, b) asm volatile(op " %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b))
#define PTX4(op, d, a, b, c) asm volatile(op " %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c))

#endif
