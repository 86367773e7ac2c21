// Multi-scalar multiplication: Pippenger's buckets with signed windows, all windows at once.
//
//   recode -> count -> scan -> scatter        entries sorted by (window, bucket); one sort serves any number of point sets
//   tasks -> scan -> accumulate -> gather*    each bucket is cut into tasks of bounded length, so that skew costs nothing
//   weigh -> fold*                            sum of digit * bucket, on all SMs; one point a window is left for the host
//
//   double -> affine                          once for points that are kept: tables of their multiples, see below
//
// With tables, windows share sets of buckets: window w goes to set w % sets with the point of table w / sets, which holds
// 2^(c * sets * table) times each point, `stride` points a table. Without, every window has its own set and there is one table.
// K is sets * buckets. Digits: as src/msm/digits.rs, the oracle of the first line; the plan is src/device/msm.rs.
// Atomics give an order that changes from run to run; sums are complete, so the affine result does not.
#include "curve.cuh"

namespace {

constexpr uint32_t SIGN = 1u << 31;
constexpr uint32_t NO_KEY = ~0u;

// The windows of one scalar, lowest first.
struct Digits {
  Fr sum;  // the recoded scalar plus 2^(c-1) in every window but the top one; only its words are used
  bool negative;

  __device__ __forceinline__ Digits(const Fr& recoded, const Fr& offset) {
    negative = (recoded.w[7] & SIGN) != 0;
    PTX3("add.cc.u32", sum.w[0], recoded.w[0], offset.w[0]);
#pragma unroll
    for (int i = 1; i < 7; i++) PTX3("addc.cc.u32", sum.w[i], recoded.w[i], offset.w[i]);
    PTX3("addc.u32", sum.w[7], recoded.w[7] & ~SIGN, offset.w[7]);
  }

  // The next digit, in -2^(c-1)..=2^(c-1).
  __device__ __forceinline__ int32_t next(uint32_t window, bool top) {
    const uint32_t bits = sum.w[0] & ((1u << window) - 1);
#pragma unroll
    for (int i = 0; i < 7; i++) sum.w[i] = sum.w[i] >> window | sum.w[i + 1] << (32 - window);
    sum.w[7] >>= window;
    const int32_t digit = top ? int32_t(bits) : int32_t(bits) - (1 << (window - 1));
    return negative ? -digit : digit;
  }
};

__device__ __forceinline__ uint32_t key_of(int32_t digit, uint32_t index, uint32_t window) {
  if (digit == 0) return NO_KEY;
  return (index << (window - 1)) + uint32_t(digit < 0 ? -digit : digit) - 1;
}

// The last index in 0..count with offsets[index] <= value; offsets[0] = 0 and offsets[count] > value.
__device__ __forceinline__ uint32_t find(const uint32_t* offsets, uint32_t count, uint32_t value) {
  uint32_t low = 0, high = count;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    if (offsets[middle] <= value) low = middle;
    else high = middle;
  }
  return low;
}

}  // namespace

// Scalars become the smaller of x and r - x, as integers, bit 255 for the latter; counts those that are 0, +-1, below 2^64
// and larger in classes[0..4].
// Launch: grid ceil(count / 256), block 256. Shared: none. Registers: at most 64.
// Data: Montgomery in, integers out; classes zeroed before. Oracle: src/msm/digits.rs::new
extern "C" __global__ void __launch_bounds__(256)
    msm_recode_kernel(const Fr* scalars, Fr* recoded, uint32_t* classes, uint32_t count) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  uint32_t kind = 4;
  if (thread < count) {
    Fr value = load(scalars + thread).to_integer();
    uint32_t borrow;
    PTX3("sub.cc.u32", borrow, FrParameters::half(0), value.w[0]);
#pragma unroll
    for (int i = 1; i < 8; i++) PTX3("subc.cc.u32", borrow, FrParameters::half(i), value.w[i]);
    PTX3("subc.u32", borrow, 0u, 0u);
    if (borrow) value = -value;
    uint32_t large = 0;
#pragma unroll
    for (int i = 2; i < 8; i++) large |= value.w[i];
    kind = large ? 3 : value.w[1] || value.w[0] > 1 ? 2 : value.w[0];
    if (borrow) value.w[7] |= SIGN;
    recoded[thread] = value;
  }
  for (uint32_t k = 0; k < 4; k++) {
    const uint32_t votes = __ballot_sync(~0u, kind == k);
    if (threadIdx.x % 32 == 0 && votes != 0) atomicAdd(classes + k, __popc(votes));
  }
}

// Counts the entries of every bucket; lanes with the same bucket add once.
// Launch: grid ceil(count / 256), block 256. Shared: none. Registers: at most 64.
// Data: counts zeroed before, K. Oracle: src/msm/digits.rs::sort
extern "C" __global__ void __launch_bounds__(256)
    msm_count_kernel(const Fr* recoded, const Fr* offset, uint32_t* counts, uint32_t count, uint32_t window,
                     uint32_t windows, uint32_t sets) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  Digits digits(thread < count ? load(recoded + thread) : Fr::zero(), load(offset));
  for (uint32_t index = 0, set = 0; index < windows; index++) {
    const int32_t digit = digits.next(window, index + 1 == windows);
    const uint32_t key = thread < count ? key_of(digit, set, window) : NO_KEY;
    const uint32_t peers = __match_any_sync(~0u, key);
    const bool leader = uint32_t(__ffs(peers)) - 1 == threadIdx.x % 32;
    if (key != NO_KEY && leader) atomicAdd(counts + key, __popc(peers));
    if (++set == sets) set = 0;
  }
}

// Writes 2 * index + (1 for a negative digit) to a place of its bucket; scalar 0 belongs to point `first` of every table.
// Launch: grid ceil(count / 256), block 256. Shared: none. Registers: at most 64.
// Data: offsets scanned, K + 1; taken zeroed before, K; entries in any order within a bucket. Oracle: src/msm/digits.rs::sort
extern "C" __global__ void __launch_bounds__(256)
    msm_scatter_kernel(const Fr* recoded, const Fr* offset, const uint32_t* offsets, uint32_t* taken, uint32_t* entries,
                       uint32_t count, uint32_t window, uint32_t windows, uint32_t sets, uint32_t stride, uint32_t first) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
  Digits digits(thread < count ? load(recoded + thread) : Fr::zero(), load(offset));
  uint32_t point = first + thread;
  for (uint32_t index = 0, set = 0; index < windows; index++) {
    const int32_t digit = digits.next(window, index + 1 == windows);
    const uint32_t key = thread < count ? key_of(digit, set, window) : NO_KEY;
    const uint32_t peers = __match_any_sync(~0u, key);
    const uint32_t leader = uint32_t(__ffs(peers)) - 1;
    uint32_t place = 0;
    if (key != NO_KEY && leader == lane) place = atomicAdd(taken + key, __popc(peers));
    place = __shfl_sync(~0u, place, leader);
    if (key != NO_KEY) entries[offsets[key] + place + __popc(peers & ((1u << lane) - 1))] = 2 * point + (digit < 0 ? 1 : 0);
    if (++set == sets) set = 0, point += stride;
  }
}

// lengths[k] = tasks of `task` entries at most for bucket k, lengths[K] = 0; longest = the longest bucket.
// Launch: grid ceil((K + 1) / 256), block 256. Shared: none. Registers: at most 32.
extern "C" __global__ void __launch_bounds__(256)
    msm_tasks_kernel(const uint32_t* offsets, uint32_t* lengths, uint32_t* longest, uint32_t buckets, uint32_t task) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread > buckets) return;
  const uint32_t length = thread < buckets ? offsets[thread + 1] - offsets[thread] : 0;
  lengths[thread] = (length + task - 1) / task;
  if (length > 1) atomicMax(longest, length);
}

// Exclusive sums within tiles of 1024, in place; sums[tile] = the tile's total.
// Launch: grid ceil(count / 1024), block 256. Shared: 32 B, static. Registers: at most 32.
extern "C" __global__ void __launch_bounds__(256) msm_scan_kernel(uint32_t* values, uint32_t* sums, uint32_t count) {
  SHARED_ARRAY(uint32_t, warps, 8);
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t start = blockIdx.x * 1024 + 4 * threadIdx.x;
  uint32_t own[4], total = 0;
#pragma unroll
  for (uint32_t i = 0; i < 4; i++) {
    own[i] = total;
    total += start + i < count ? values[start + i] : 0;
  }
  uint32_t sum = total;
  for (uint32_t by = 1; by < 32; by *= 2) {
    const uint32_t before = __shfl_up_sync(~0u, sum, by);
    if (lane >= by) sum += before;
  }
  if (lane == 31) warps.set(warp, sum);
  __syncthreads();
  uint32_t before = sum - total;
  for (uint32_t i = 0; i < warp; i++) before += warps.get(i);
#pragma unroll
  for (uint32_t i = 0; i < 4; i++)
    if (start + i < count) values[start + i] = before + own[i];
  if (threadIdx.x == 255) sums[blockIdx.x] = before + total;
}

// Adds the scanned totals to the tiles. Launch: grid ceil(count / 256), block 256. Shared: none. Registers: at most 32.
extern "C" __global__ void __launch_bounds__(256) msm_scan_add_kernel(uint32_t* values, const uint32_t* sums, uint32_t count) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread < count) values[thread] += sums[thread / 1024];
}

// Sums the points of one task: entries task * j.. of a bucket.
template <class F>
__device__ __forceinline__ void accumulate(const uint32_t* entries, const Affine<F>* points, const uint32_t* offsets,
                                           const uint32_t* tasks, Xyzz<F>* sums, uint32_t buckets, uint32_t task) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= tasks[buckets]) return;
  const uint32_t bucket = find(tasks, buckets, thread);
  const uint32_t from = offsets[bucket] + (thread - tasks[bucket]) * task, end = offsets[bucket + 1];
  const uint32_t to = end - from < task ? end : from + task;
  Xyzz<F> sum = Xyzz<F>::infinity();
  for (uint32_t at = from; at < to; at++) {
    const uint32_t entry = entries[at];
    sum.add(load(points + entry / 2), entry % 2 != 0);
  }
  sums[thread] = sum;
}

// As accumulate, but of sums: those of bucket k lie from offsets[k].
template <class F>
__device__ __forceinline__ void gather(const Xyzz<F>* in, const uint32_t* offsets, const uint32_t* tasks, Xyzz<F>* sums,
                                       uint32_t buckets, uint32_t task) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= tasks[buckets]) return;
  const uint32_t bucket = find(tasks, buckets, thread);
  const uint32_t from = offsets[bucket] + (thread - tasks[bucket]) * task, end = offsets[bucket + 1];
  const uint32_t to = end - from < task ? end : from + task;
  Xyzz<F> sum = load(in + from);
  for (uint32_t at = from + 1; at < to; at++) sum.add(load(in + at));
  sums[thread] = sum;
}

// out[thread] = sum of digit * bucket over `chunk` buckets of one window, by a running sum from the top.
template <class F>
__device__ __forceinline__ void weigh(const Xyzz<F>* sums, const uint32_t* offsets, Xyzz<F>* out, uint32_t buckets,
                                      uint32_t chunk, uint32_t count) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= count) return;
  const uint32_t first = thread * chunk;
  Xyzz<F> running = Xyzz<F>::infinity(), weighted = running;
  for (uint32_t bucket = first + chunk; bucket-- > first;) {
    if (offsets[bucket + 1] > offsets[bucket]) running.add(load(sums + offsets[bucket]));
    weighted.add(running);
  }
  running.multiply(first % buckets);
  weighted.add(running);
  out[thread] = weighted;
}

// Sums 128 points of one window: a block reads in[window * before + 128 i..] and writes out[window * after + i].
template <class F>
__device__ __forceinline__ void fold(const Xyzz<F>* in, Xyzz<F>* out, uint32_t before, uint32_t after) {
  SHARED_DYNAMIC(Xyzz<F>, shared, 64);
  const uint32_t window = blockIdx.x / after, at = blockIdx.x % after * 128 + threadIdx.x;
  Xyzz<F> sum = Xyzz<F>::infinity();
  if (at < before) sum = load(in + window * before + at);
  if (at + 64 < before) sum.add(load(in + window * before + at + 64));
  shared.set(threadIdx.x, sum);
  for (uint32_t half = 32; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      sum.add(shared.get(threadIdx.x + half));
      shared.set(threadIdx.x, sum);
    }
  }
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// sums[i] = 2^doublings * points[first + i].
template <class F>
__device__ __forceinline__ void doubled(const Affine<F>* points, Xyzz<F>* sums, uint32_t first, uint32_t count,
                                        uint32_t doublings) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= count) return;
  Xyzz<F> sum = Xyzz<F>::from(load(points + first + thread));
#pragma unroll 1
  for (uint32_t i = 0; i < doublings; i++) sum.double_inline();
  sums[thread] = sum;
}

// points[first + i] = sums[i]: every `threads`-th of them with one inversion (Montgomery's trick, infinity left out).
template <class F>
__device__ __forceinline__ void to_affine(const Xyzz<F>* sums, F* products, Affine<F>* points, uint32_t first,
                                          uint32_t count, uint32_t threads) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  F product = F::one();
  uint32_t end = thread;
#pragma unroll 1
  for (; end < count; end += threads) {
    products[end] = product;
    const F zzz = load(&sums[end].zzz);
    if (!zzz.is_zero()) product = product * zzz;
  }
  F inverse = product.inverse();
#pragma unroll 1
  for (uint32_t at = end; at > thread;) {
    at -= threads;
    const Xyzz<F> sum = load(sums + at);
    Affine<F> point = {F::zero(), F::zero()};
    if (!sum.is_infinity()) {
      const F own = inverse * load(products + at);  // 1 / zzz
      inverse = inverse * sum.zzz;
      point = {sum.x * (own * sum.zz).squared(), sum.y * own};
    }
    points[first + at] = point;
  }
}

// Sums the points of every task.
// Launch: grid ceil(tasks / 128), block 128. Shared: none. Registers: at most 128 (G1), 255 (G2).
// Data: points affine Montgomery, sums XYZZ, one a task. Oracle: src/msm/buckets.rs::sums
extern "C" __global__ void __launch_bounds__(128, 4)
    msm_accumulate_g1_kernel(const uint32_t* entries, const G1Affine* points, const uint32_t* offsets,
                             const uint32_t* tasks, G1Xyzz* sums, uint32_t buckets, uint32_t task) {
  accumulate(entries, points, offsets, tasks, sums, buckets, task);
}
extern "C" __global__ void __launch_bounds__(128)
    msm_accumulate_g2_kernel(const uint32_t* entries, const G2Affine* points, const uint32_t* offsets,
                             const uint32_t* tasks, G2Xyzz* sums, uint32_t buckets, uint32_t task) {
  accumulate(entries, points, offsets, tasks, sums, buckets, task);
}

// Sums the sums of every task of the next round.
// Launch: grid ceil(tasks / 128), block 128. Shared: none. Registers: at most 128 (G1), 255 (G2).
extern "C" __global__ void __launch_bounds__(128)
    msm_gather_g1_kernel(const G1Xyzz* in, const uint32_t* offsets, const uint32_t* tasks, G1Xyzz* sums, uint32_t buckets,
                         uint32_t task) {
  gather(in, offsets, tasks, sums, buckets, task);
}
extern "C" __global__ void __launch_bounds__(128)
    msm_gather_g2_kernel(const G2Xyzz* in, const uint32_t* offsets, const uint32_t* tasks, G2Xyzz* sums, uint32_t buckets,
                         uint32_t task) {
  gather(in, offsets, tasks, sums, buckets, task);
}

// Weighs the buckets, `chunk` a thread; `buckets` of one window, a multiple of chunk.
// Launch: grid ceil(count / 128), block 128; count = K / chunk. Shared: none. Registers: at most 255.
// Data: sums and offsets with at most one sum a bucket. Oracle: src/msm/buckets.rs::weighted
extern "C" __global__ void __launch_bounds__(128)
    msm_weigh_g1_kernel(const G1Xyzz* sums, const uint32_t* offsets, G1Xyzz* out, uint32_t buckets, uint32_t chunk,
                        uint32_t count) {
  weigh(sums, offsets, out, buckets, chunk, count);
}
extern "C" __global__ void __launch_bounds__(128)
    msm_weigh_g2_kernel(const G2Xyzz* sums, const uint32_t* offsets, G2Xyzz* out, uint32_t buckets, uint32_t chunk,
                        uint32_t count) {
  weigh(sums, offsets, out, buckets, chunk, count);
}

// Sums points of each window, 128 a block; `after` = ceil(before / 128).
// Launch: grid windows * after, block 64. Shared: 8 KiB (G1), 16 KiB (G2). Registers: at most 255.
extern "C" __global__ void __launch_bounds__(64)
    msm_fold_g1_kernel(const G1Xyzz* in, G1Xyzz* out, uint32_t before, uint32_t after) {
  fold(in, out, before, after);
}
extern "C" __global__ void __launch_bounds__(64)
    msm_fold_g2_kernel(const G2Xyzz* in, G2Xyzz* out, uint32_t before, uint32_t after) {
  fold(in, out, before, after);
}

// Multiplies points by 2^doublings: the next table, as sums.
// Launch: grid ceil(count / 128), block 128. Shared: none. Registers: at most 128 (G1), 255 (G2).
// Data: points affine Montgomery, sums XYZZ. Oracle: ark_ec
extern "C" __global__ void __launch_bounds__(128)
    msm_double_g1_kernel(const G1Affine* points, G1Xyzz* sums, uint32_t first, uint32_t count, uint32_t doublings) {
  doubled(points, sums, first, count, doublings);
}
extern "C" __global__ void __launch_bounds__(128)
    msm_double_g2_kernel(const G2Affine* points, G2Xyzz* sums, uint32_t first, uint32_t count, uint32_t doublings) {
  doubled(points, sums, first, count, doublings);
}

// Writes sums as affine points, an inversion a thread; threads <= count.
// Launch: grid ceil(threads / 128), block 128. Shared: none. Registers: at most 128 (G1), 255 (G2).
// Data: products is scratch, a coordinate a sum. Oracle: ark_ec
extern "C" __global__ void __launch_bounds__(128)
    msm_affine_g1_kernel(const G1Xyzz* sums, Fq* products, G1Affine* points, uint32_t first, uint32_t count,
                         uint32_t threads) {
  to_affine(sums, products, points, first, count, threads);
}
extern "C" __global__ void __launch_bounds__(128)
    msm_affine_g2_kernel(const G2Xyzz* sums, Fq2* products, G2Affine* points, uint32_t first, uint32_t count,
                         uint32_t threads) {
  to_affine(sums, products, points, first, count, threads);
}
