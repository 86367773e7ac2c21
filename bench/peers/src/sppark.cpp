// sppark's sums on the CPU, over blst's assembly. Elements in Montgomery form, four words each; infinity is all zeros.
#include <atomic>
#include <ff/alt_bn128-fp2.hpp>
#include <ec/jacobian_t.hpp>
#include <ec/xyzz_t.hpp>
#include <msm/pippenger.hpp>

using namespace alt_bn128;

template <class field_t>
using affine = typename xyzz_t<field_t>::affine_t;

static_assert(sizeof(affine<fp_t>) == 64 && sizeof(affine<fp2_t>) == 128 && sizeof(fr_t) == 32, "layouts that sppark.rs relies on");

template <class field_t>
static void sum(affine<field_t>* out, const affine<field_t>* points, size_t count, const fr_t* scalars, thread_pool_t& pool) {
  jacobian_t<field_t> total;
  mult_pippenger<xyzz_t<field_t>>(total, points, count, scalars, true, &pool);
  *out = total;
}

// The first call starts the threads; the others' numbers are not looked at.
static thread_pool_t& pool(unsigned threads) {
  static thread_pool_t pool{threads};
  return pool;
}

extern "C" void peers_sppark_g1(affine<fp_t>* out, const affine<fp_t>* points, size_t count, const fr_t* scalars, unsigned threads) {
  sum<fp_t>(out, points, count, scalars, pool(threads));
}

extern "C" void peers_sppark_g2(affine<fp2_t>* out, const affine<fp2_t>* points, size_t count, const fr_t* scalars, unsigned threads) {
  sum<fp2_t>(out, points, count, scalars, pool(threads));
}
