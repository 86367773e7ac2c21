// G1 and G2 of BN254 (y^2 = x^3 + b): affine points as stored, sums as XYZZ. Every case is covered: infinity on either side,
// equal points, opposite points; nothing depends on b.
//
// Formulas: Explicit-Formulas Database, shortw/xyzz: madd-2008-s, add-2008-s, dbl-2008-s-1, mdbl-2008-s-1 with a = 0.
// Oracle: ark_ec. All words zero stands for infinity in affine form (it is on neither curve), zz = 0 in XYZZ.
#pragma once
#include "field.cuh"

// c0 + c1 u with u^2 = -1.
struct alignas(16) Fq2 {
  Fq c0, c1;

  static __device__ __forceinline__ Fq2 zero() { return {Fq::zero(), Fq::zero()}; }
  static __device__ __forceinline__ Fq2 one() { return {Fq::one(), Fq::zero()}; }
  __device__ __forceinline__ bool is_zero() const { return c0.is_zero() && c1.is_zero(); }
  __device__ __forceinline__ Fq2 operator+(const Fq2& b) const { return {c0 + b.c0, c1 + b.c1}; }
  __device__ __forceinline__ Fq2 operator-(const Fq2& b) const { return {c0 - b.c0, c1 - b.c1}; }
  __device__ __forceinline__ Fq2 operator-() const { return {-c0, -c1}; }
  __device__ __forceinline__ Fq2 doubled() const { return {c0.doubled(), c1.doubled()}; }
  __device__ __forceinline__ Fq2 negated_if(bool negate) const { return negate ? -*this : *this; }
  // Karatsuba: three products.
  __device__ __forceinline__ Fq2 operator*(const Fq2& b) const {
    const Fq low = c0 * b.c0, high = c1 * b.c1;
    return {low - high, (c0 + c1) * (b.c0 + b.c1) - low - high};
  }
  __device__ __forceinline__ Fq2 squared() const {
    const Fq product = c0 * c1;
    return {(c0 + c1) * (c0 - c1), product.doubled()};
  }
  __device__ __forceinline__ Fq2 inverse() const {
    const Fq norm = (c0.squared() + c1.squared()).inverse();
    return {c0 * norm, -(c1 * norm)};
  }
};

template <class F>
struct alignas(16) Affine {
  F x, y;
  __device__ __forceinline__ bool is_infinity() const { return x.is_zero() && y.is_zero(); }
};

// x = X / ZZ, y = Y / ZZZ with ZZ^3 = ZZZ^2.
template <class F>
struct alignas(16) Xyzz {
  F x, y, zz, zzz;

  static __device__ __forceinline__ Xyzz infinity() { return {F::zero(), F::zero(), F::zero(), F::zero()}; }
  static __device__ __forceinline__ Xyzz from(const Affine<F>& p) {
    if (p.is_infinity()) return infinity();
    return {p.x, p.y, F::one(), F::one()};
  }
  __device__ __forceinline__ bool is_infinity() const { return zz.is_zero(); }

  // Doubles in place; 9 products. Infinity stays infinity, and a point of order two would become it.
  __device__ OUT_OF_LINE void double_self() { double_inline(); }
  __device__ __forceinline__ void double_inline() {
    const F u = y.doubled(), v = u.squared(), w = u * v, s = x * v;
    const F square = x.squared(), m = square.doubled() + square;
    const F x3 = m.squared() - s.doubled();
    y = m * (s - x3) - w * y;
    x = x3;
    zz = v * zz;
    zzz = w * zzz;
  }

  // Adds p, or -p if `negate`; 10 products where nothing is special.
  __device__ __forceinline__ void add(const Affine<F>& p, bool negate) {
    if (p.is_infinity()) return;
    const F py = p.y.negated_if(negate);
    if (is_infinity()) {
      *this = {p.x, py, F::one(), F::one()};
      return;
    }
    const F dx = p.x * zz - x, dy = py * zzz - y;
    if (dx.is_zero()) {
      // A copy, so that only the rare case keeps the sum in memory for the call.
      Xyzz doubled = *this;
      if (dy.is_zero()) doubled.double_self();
      *this = dy.is_zero() ? doubled : infinity();
      return;
    }
    finish(x, y, dx, dy);
  }

  // Adds q; 14 products where nothing is special.
  __device__ OUT_OF_LINE void add(const Xyzz& q) {
    if (q.is_infinity()) return;
    if (is_infinity()) {
      *this = q;
      return;
    }
    const F u = x * q.zz, s = y * q.zzz;
    const F dx = q.x * zz - u, dy = q.y * zzz - s;
    if (dx.is_zero()) {
      if (dy.is_zero()) double_self();
      else *this = infinity();
      return;
    }
    zz = zz * q.zz;
    zzz = zzz * q.zzz;
    finish(u, s, dx, dy);
  }

  // Multiplies by a small number, by doubling and adding from its top bit.
  __device__ __forceinline__ void multiply(uint32_t by) {
    Xyzz sum = infinity();
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
      if (!sum.is_infinity()) sum.double_self();
      if (by & bit) sum.add(*this);
    }
    *this = sum;
  }

 private:
  // The common end of both additions: u, s are this point's coordinates over the common denominator.
  __device__ __forceinline__ void finish(const F& u, const F& s, const F& dx, const F& dy) {
    const F pp = dx.squared(), ppp = dx * pp, q = u * pp;
    const F x3 = dy.squared() - ppp - q.doubled();
    y = dy * (q - x3) - s * ppp;
    x = x3;
    zz = zz * pp;
    zzz = zzz * ppp;
  }
};

using G1Affine = Affine<Fq>;
using G2Affine = Affine<Fq2>;
using G1Xyzz = Xyzz<Fq>;
using G2Xyzz = Xyzz<Fq2>;
