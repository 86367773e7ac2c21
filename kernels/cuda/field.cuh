// BN254's prime fields: 8 words of 32 bits, little-endian, Montgomery form with R = 2^256, always fully reduced.
//
// These are arkworks' bytes: elements cross the border as they are. Products keep even and odd columns apart, so that each
// word's low and high halves form one carry chain that compiles to IMAD.WIDE (Emmart, Zheng, Weems 2018).
// Constants: constants.cuh, derived from arkworks. Oracle: ark_bn254::{Fr, Fq}.
#pragma once
#include "constants.cuh"
#include "device.cuh"

// acc[0..8] += (a[0], a[2], a[4], a[6]) * b, each product two words wide; leaves the carry out in the flag.
template <class Word>
__device__ __forceinline__ void chain_mad(uint32_t* acc, Word a, uint32_t b) {
  PTX4("mad.lo.cc.u32", acc[0], a(0), b, acc[0]);
  PTX4("madc.hi.cc.u32", acc[1], a(0), b, acc[1]);
#pragma unroll
  for (int i = 2; i < 8; i += 2) {
    PTX4("madc.lo.cc.u32", acc[i], a(i), b, acc[i]);
    PTX4("madc.hi.cc.u32", acc[i + 1], a(i), b, acc[i + 1]);
  }
}

// acc = (acc >> 64) + (a[0], a[2], a[4], a[6]) * b + the carry in the flag. The sum fits: it is a part of a reduced product.
template <class Word>
__device__ __forceinline__ void chain_mad_shifted(uint32_t* acc, Word a, uint32_t b) {
#pragma unroll
  for (int i = 0; i < 6; i += 2) {
    PTX4("madc.lo.cc.u32", acc[i], a(i), b, acc[i + 2]);
    PTX4("madc.hi.cc.u32", acc[i + 1], a(i), b, acc[i + 3]);
  }
  PTX4("madc.lo.cc.u32", acc[6], a(6), b, 0u);
  PTX4("madc.hi.u32", acc[7], a(6), b, 0u);
}

template <class P>
struct alignas(16) Field {
  uint32_t w[8];

  static __device__ __forceinline__ Field zero() {
    Field r;
#pragma unroll
    for (int i = 0; i < 8; i++) r.w[i] = 0;
    return r;
  }
  static __device__ __forceinline__ Field one() {
    Field r;
#pragma unroll
    for (int i = 0; i < 8; i++) r.w[i] = P::one(i);
    return r;
  }
  __device__ __forceinline__ bool is_zero() const {
    uint32_t any = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) any |= w[i];
    return any == 0;
  }
  __device__ __forceinline__ bool operator==(const Field& b) const {
    uint32_t any = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) any |= w[i] ^ b.w[i];
    return any == 0;
  }

  // From an integer below 2^256 that need not be reduced: into Montgomery form.
  static __device__ __forceinline__ Field from_integer(const Field& integer) {
    Field square;
#pragma unroll
    for (int i = 0; i < 8; i++) square.w[i] = P::square_of_r(i);
    return square * integer;
  }

  // Takes the modulus off once if the value has reached it: any value below 2p becomes reduced.
  __device__ __forceinline__ Field reduced() const {
    Field r;
    uint32_t borrow;
    PTX3("sub.cc.u32", r.w[0], w[0], P::modulus(0));
#pragma unroll
    for (int i = 1; i < 8; i++) PTX3("subc.cc.u32", r.w[i], w[i], P::modulus(i));
    PTX3("subc.u32", borrow, 0u, 0u);
#pragma unroll
    for (int i = 0; i < 8; i++) r.w[i] = borrow ? w[i] : r.w[i];
    return r;
  }

  __device__ __forceinline__ Field operator+(const Field& b) const {
    Field r;
    PTX3("add.cc.u32", r.w[0], w[0], b.w[0]);
#pragma unroll
    for (int i = 1; i < 7; i++) PTX3("addc.cc.u32", r.w[i], w[i], b.w[i]);
    PTX3("addc.u32", r.w[7], w[7], b.w[7]);  // 2p < 2^255
    return r.reduced();
  }

  __device__ __forceinline__ Field operator-(const Field& b) const {
    Field r;
    uint32_t borrow;
    PTX3("sub.cc.u32", r.w[0], w[0], b.w[0]);
#pragma unroll
    for (int i = 1; i < 8; i++) PTX3("subc.cc.u32", r.w[i], w[i], b.w[i]);
    PTX3("subc.u32", borrow, 0u, 0u);
    PTX3("add.cc.u32", r.w[0], r.w[0], P::modulus(0) & borrow);
#pragma unroll
    for (int i = 1; i < 7; i++) PTX3("addc.cc.u32", r.w[i], r.w[i], P::modulus(i) & borrow);
    PTX3("addc.u32", r.w[7], r.w[7], P::modulus(7) & borrow);
    return r;
  }

  __device__ __forceinline__ Field operator-() const { return zero() - *this; }
  __device__ __forceinline__ Field doubled() const { return *this + *this; }
  __device__ __forceinline__ Field squared() const { return *this * *this; }
  __device__ __forceinline__ Field negated_if(bool negate) const { return negate ? -*this : *this; }

  // 1 / this, and 0 for 0: the power p - 2, at most two products a bit. Both moduli have 254 bits and end in a word above 1.
  __device__ OUT_OF_LINE Field inverse() const {
    Field power = one();
#pragma unroll 1
    for (int bit = 253; bit >= 0; bit--) {
      const uint32_t word = P::modulus(bit / 32) - (bit < 32 ? 2 : 0);
      power = power.squared();
      if (word >> bit % 32 & 1) power = power * *this;
    }
    return power;
  }

  // Montgomery product. even + 2^32 odd accumulates; each step adds a * b[i], then a multiple of p that clears the lowest
  // word, and moves down one word, which swaps the columns.
  __device__ __forceinline__ Field operator*(const Field& b) const {
    uint32_t even[8], odd[8];
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      PTX3("mul.lo.u32", even[i], w[i], b.w[0]);
      PTX3("mul.hi.u32", even[i + 1], w[i], b.w[0]);
      PTX3("mul.lo.u32", odd[i], w[i + 1], b.w[0]);
      PTX3("mul.hi.u32", odd[i + 1], w[i + 1], b.w[0]);
    }
    clear_lowest(even, odd);
    step(odd, even, b.w[1]);
#pragma unroll
    for (int i = 2; i < 8; i += 2) {
      step(even, odd, b.w[i]);
      step(odd, even, b.w[i + 1]);
    }
    return merged(odd, even);
  }

  // The integer that the element stands for, not in Montgomery form: a product with 1 / R.
  __device__ __forceinline__ Field to_integer() const {
    uint32_t even[8], odd[8];
#pragma unroll
    for (int i = 0; i < 8; i++) even[i] = w[i], odd[i] = 0;
    clear_lowest(even, odd);
#pragma unroll
    for (int i = 1; i < 8; i++) {
      uint32_t* low = i % 2 ? odd : even;
      uint32_t* high = i % 2 ? even : odd;
      PTX3("add.cc.u32", low[0], low[0], high[1]);
#pragma unroll
      for (int j = 0; j < 6; j++) PTX3("addc.cc.u32", high[j], high[j + 2], 0u);
      PTX3("addc.u32", high[6], 0u, 0u);
      high[7] = 0;
      clear_lowest(low, high);
    }
    return merged(odd, even);
  }

 private:
  static __device__ __forceinline__ void clear_lowest(uint32_t* low, uint32_t* high) {
    uint32_t factor;
    PTX3("mul.lo.u32", factor, low[0], P::INVERSE_NEGATED);
    chain_mad(high, [](int i) { return P::modulus(i + 1); }, factor);
    chain_mad(low, [](int i) { return P::modulus(i); }, factor);
    PTX3("addc.u32", high[7], high[7], 0u);
  }

  // Adds this * factor. `low` holds words 0..8 after the move, `high`, not yet moved, has one word that belongs to `low`.
  __device__ __forceinline__ void step(uint32_t* low, uint32_t* high, uint32_t factor) const {
    PTX3("add.cc.u32", low[0], low[0], high[1]);
    chain_mad_shifted(high, [this](int i) { return w[i + 1]; }, factor);
    chain_mad(low, [this](int i) { return w[i]; }, factor);
    PTX3("addc.u32", high[7], high[7], 0u);
    clear_lowest(low, high);
  }

  // The last move: the lowest word of `low` is zero, so word i is high[i] + low[i + 1].
  static __device__ __forceinline__ Field merged(const uint32_t* low, const uint32_t* high) {
    Field r;
    PTX3("add.cc.u32", r.w[0], high[0], low[1]);
#pragma unroll
    for (int i = 1; i < 7; i++) PTX3("addc.cc.u32", r.w[i], high[i], low[i + 1]);
    PTX3("addc.u32", r.w[7], high[7], 0u);
    return r.reduced();
  }
};

using Fr = Field<FrParameters>;
using Fq = Field<FqParameters>;

// Reads and writes 32 bytes as two accesses of 16.
template <class T>
__device__ __forceinline__ T load(const T* from) {
#ifdef ASSAY_SHIM
  return *from;
#else
  T value;
  const uint4* in = reinterpret_cast<const uint4*>(from);
  uint4* out = reinterpret_cast<uint4*>(&value);
#pragma unroll
  for (unsigned i = 0; i < sizeof(T) / 16; i++) out[i] = in[i];
  return value;
#endif
}
