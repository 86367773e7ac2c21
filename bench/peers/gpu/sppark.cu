// sppark's G1 sum on the GPU, over the inputs and next to the result and the time of ours: `sppark FILE`, a file of `gpu inputs`.
//
// Prints a row of a Markdown table; status 1 if the sums differ. As ours: points and scalars are on the device before, the best of five
// runs after one that is not counted, the sum in host memory at the end. Built by bench/gpu.sh.
//
// The file, little-endian: number of points (u64), our milliseconds (f64), points (x, y: 32 bytes each, Montgomery form), scalars
// (32 bytes, Montgomery form), our sum (x, y).
#include <cuda.h>
#include <ff/alt_bn128.hpp>
#include <ec/jacobian_t.hpp>
#include <ec/xyzz_t.hpp>

using namespace alt_bn128;
typedef jacobian_t<fp_t> point_t;
typedef xyzz_t<fp_t> bucket_t;
typedef bucket_t::affine_t affine_t;
typedef fr_t scalar_t;

#include <msm/pippenger.cuh>

#ifndef __CUDA_ARCH__
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

static_assert(sizeof(affine_t) == 64 && sizeof(fr_t) == 32, "the file's elements");

struct Inputs {
  uint64_t count = 0;
  double milliseconds = 0;
  std::vector<affine_t> points;
  std::vector<fr_t> scalars;
  unsigned char sum[sizeof(affine_t)];

  bool read(const char* path) {
    const std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path, "rb"), fclose);
    const auto take = [&](void* to, size_t bytes) { return fread(to, 1, bytes, file.get()) == bytes; };
    if (!file || !take(&count, 8) || !take(&milliseconds, 8) || count == 0 || count > uint64_t(1) << 30) return false;
    points.resize(count);
    scalars.resize(count);
    return take(points.data(), 64 * count) && take(scalars.data(), 32 * count) && take(sum, sizeof sum);
  }
};

// The best of five sums, in milliseconds; negative if one is not ours.
static double best(const Inputs& inputs) {
  const auto& gpu = select_gpu();
  msm_t<bucket_t, point_t, affine_t, scalar_t> msm(nullptr, inputs.count);
  dev_ptr_t<affine_t> points(inputs.count);
  dev_ptr_t<fr_t> scalars(inputs.count);
  gpu.HtoD(points.data(), inputs.points.data(), inputs.count);
  gpu.HtoD(scalars.data(), inputs.scalars.data(), inputs.count);
  gpu.sync();
  double best = 1e30;
  for (int run = 0; run < 6; run++) {
    const auto start = std::chrono::steady_clock::now();
    point_t total;
    const RustError status = msm.invoke(total, points, inputs.count, scalars, true);
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    if (status.code != 0) throw cuda_error{status.code, "sppark's sum failed"};
    const affine_t sum = total;
    if (memcmp(&sum, inputs.sum, sizeof sum) != 0) return -1;
    if (run > 0 && time.count() < best) best = time.count();
  }
  return best;
}

int main(int count, char** words) {
  Inputs inputs;
  if (count != 2 || !inputs.read(words[1])) {
    fprintf(stderr, "usage: sppark FILE, a file of `gpu inputs`\n");
    return 2;
  }
  try {
    const double theirs = best(inputs);
    if (theirs < 0) {
      fprintf(stderr, "sppark: its sum over %llu points is not ours\n", (unsigned long long)inputs.count);
      return 1;
    }
    printf("| MSM G1 2^%d uniform | %.3f | %.3f | %.2f |\n", 63 - __builtin_clzll(inputs.count), inputs.milliseconds, theirs,
           theirs / inputs.milliseconds);
    return 0;
  } catch (const cuda_error& error) {
    fprintf(stderr, "sppark: %s\n", error.what());
    return 1;
  }
}
#endif
