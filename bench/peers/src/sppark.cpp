// sppark's sum on the CPU, over blst's assembly. Elements in Montgomery form.
#include <atomic>
#include <ff/alt_bn128.hpp>
#include <ec/jacobian_t.hpp>
#include <ec/xyzz_t.hpp>
#include <msm/pippenger.hpp>

using namespace alt_bn128;
using bucket_t = xyzz_t<fp_t>;
using point_t = jacobian_t<fp_t>;
using affine_t = bucket_t::affine_t;

static_assert(sizeof(affine_t) == 64 && sizeof(point_t) == 96 && sizeof(fr_t) == 32, "layouts that sppark.rs relies on");

extern "C" void peers_sppark_sum(point_t* out, const affine_t* points, size_t count, const fr_t* scalars) {
  static thread_pool_t pool;
  mult_pippenger<bucket_t>(*out, points, count, scalars, true, &pool);
}
