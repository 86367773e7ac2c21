// Number-theoretic transforms over Fr on r * 2^k points, r = 1, 3 or 9, in place. Nothing is ever sorted: the inverse
// transform leaves permuted coefficients, the forward transform takes them.
//
// Permuted order: as in src/ntt.rs, and for r = 9 position (3 k0 + k0') * 2^k + rev(k1) holds coefficient 9 k1 + 3 k0' + k0.
// Twiddles: the table of src/ntt/radix2.rs, w^rev(b) for block b on every level, 2^(k-1) elements (one at least).
// A pass does `depth` levels on tiles in shared memory: src/device/ntt.rs plans passes of at most 8 levels.
#include "curve.cuh"

namespace {

// Which elements of a part a tile holds. Index in the part: [block][sub: depth bits][column]; in the tile:
// [low bits of block][sub][low bits of column], so that neighbours in the tile are neighbours in memory.
struct Tile {
  uint32_t base;  // of the part
  uint32_t block_high, column_high;
  uint32_t depth, column_bits, low_column_bits, low_block_bits;

  __device__ __forceinline__ Tile(uint32_t log_part, uint32_t level, uint32_t depth, uint32_t log_tile) : depth(depth) {
    const uint32_t tiles_bits = log_part - log_tile;
    const uint32_t tile = blockIdx.x & ((1u << tiles_bits) - 1);
    base = (blockIdx.x >> tiles_bits) << log_part;
    column_bits = log_part - level - depth;
    low_column_bits = log_tile - depth < column_bits ? log_tile - depth : column_bits;
    low_block_bits = log_tile - depth - low_column_bits;
    const uint32_t high_column_bits = column_bits - low_column_bits;
    column_high = tile & ((1u << high_column_bits) - 1);
    block_high = tile >> high_column_bits;
  }

  // Position in the array of element `local` of the tile.
  __device__ __forceinline__ uint32_t position(uint32_t local) const {
    const uint32_t column = local & ((1u << low_column_bits) - 1);
    const uint32_t sub = (local >> low_column_bits) & ((1u << depth) - 1);
    const uint32_t block = (block_high << low_block_bits) | (local >> (low_column_bits + depth));
    return base + ((block << depth | sub) << column_bits | column_high << low_column_bits | column);
  }
};

// w^rev(block), or its inverse: see Twiddles::get in src/ntt/radix2.rs.
__device__ __forceinline__ Fr twiddle(const Fr* twiddles, uint32_t block, bool inverse) {
  if (!inverse || block == 0) return load(twiddles + block);
  uint32_t top = block;
  for (uint32_t shift = 1; shift < 32; shift *= 2) top |= top >> shift;
  top -= top >> 1;
  return -load(twiddles + (3 * top - 1 - block));
}

constexpr uint32_t NO_SCALE = 32;

// Times low[position mod 2^bits] * high[position >> bits]: coset powers in permuted order, and 1 / n.
__device__ __forceinline__ Fr scaled(const Fr& value, const Fr* low, const Fr* high, uint32_t bits, uint32_t position) {
  if (bits == NO_SCALE) return value;
  return value * load(low + (position & ((1u << bits) - 1))) * load(high + (position >> bits));
}

}  // namespace

// `depth` levels from `level` down of the transforms that split: (x, y) -> (x + t y, x - t y).
// Launch: grid n >> log_tile, block max(32, 2^(log_tile - 1)) at most 512. Shared: 32 B << log_tile. Registers: at most 64.
// Data: Montgomery, in place, natural order in the first pass, permuted after the last; scaled when stored unless
// scale_bits = 32. Oracle: src/ntt/radix2.rs::split and src/ntt.rs::scale_permuted.
extern "C" __global__ void __launch_bounds__(512, 2)
    ntt_split_kernel(Fr* values, const Fr* twiddles, const Fr* scale_low, const Fr* scale_high, uint32_t scale_bits,
                     uint32_t log_part, uint32_t level, uint32_t depth, uint32_t log_tile, uint32_t inverse) {
  const Tile tile(log_part, level, depth, log_tile);
  SHARED_DYNAMIC(Fr, shared, 1u << log_tile);
  for (uint32_t i = threadIdx.x; i < 1u << log_tile; i += blockDim.x) shared.set(i, load(values + tile.position(i)));
  for (uint32_t inner = 0; inner < depth; inner++) {
    __syncthreads();
    const uint32_t bit = tile.low_column_bits + depth - 1 - inner;
    const uint32_t first = tile.block_high << (tile.low_block_bits + inner);
    for (uint32_t pair = threadIdx.x; 2 * pair < 1u << log_tile; pair += blockDim.x) {
      const uint32_t i = (pair >> bit) << (bit + 1) | (pair & ((1u << bit) - 1)), j = i | 1u << bit;
      const Fr x = shared.get(i), y = shared.get(j) * twiddle(twiddles, first | i >> (bit + 1), inverse != 0);
      shared.set(i, x + y);
      shared.set(j, x - y);
    }
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < 1u << log_tile; i += blockDim.x) {
    const uint32_t position = tile.position(i);
    values[position] = scaled(shared.get(i), scale_low, scale_high, scale_bits, position);
  }
}

// `depth` levels from the deepest up to `level` of the transforms that merge: (x, y) -> (x + y, t (x - y)).
// Launch, shared memory, registers: as ntt_split_kernel.
// Data: Montgomery, in place, permuted order in the first pass, natural after the last; scaled when loaded unless
// scale_bits = 32. Oracle: src/ntt/radix2.rs::merge.
extern "C" __global__ void __launch_bounds__(512, 2)
    ntt_merge_kernel(Fr* values, const Fr* twiddles, const Fr* scale_low, const Fr* scale_high, uint32_t scale_bits,
                     uint32_t log_part, uint32_t level, uint32_t depth, uint32_t log_tile, uint32_t inverse) {
  const Tile tile(log_part, level, depth, log_tile);
  SHARED_DYNAMIC(Fr, shared, 1u << log_tile);
  for (uint32_t i = threadIdx.x; i < 1u << log_tile; i += blockDim.x) {
    const uint32_t position = tile.position(i);
    shared.set(i, scaled(load(values + position), scale_low, scale_high, scale_bits, position));
  }
  for (uint32_t inner = depth; inner-- > 0;) {
    __syncthreads();
    const uint32_t bit = tile.low_column_bits + depth - 1 - inner;
    const uint32_t first = tile.block_high << (tile.low_block_bits + inner);
    for (uint32_t pair = threadIdx.x; 2 * pair < 1u << log_tile; pair += blockDim.x) {
      const uint32_t i = (pair >> bit) << (bit + 1) | (pair & ((1u << bit) - 1)), j = i | 1u << bit;
      const Fr x = shared.get(i), y = shared.get(j);
      shared.set(i, x + y);
      shared.set(j, (x - y) * twiddle(twiddles, first | i >> (bit + 1), inverse != 0));
    }
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < 1u << log_tile; i += blockDim.x) values[tile.position(i)] = shared.get(i);
}

// The radix-3 pass over blocks of 3 * third points; `twiddle_first` is the transpose. powers[0] is the cube root of unity,
// then 2^low_bits powers of the root of order 3 * third, then its powers by steps of 2^low_bits.
// Launch: grid ceil(count / 128), block 128; count = n / 3. Shared: none. Registers: at most 128.
// Data: Montgomery, in place. Oracle: src/ntt.rs::radix3.
extern "C" __global__ void __launch_bounds__(128)
    ntt_radix3_kernel(Fr* values, const Fr* powers, uint32_t low_bits, uint32_t third, uint32_t count,
                      uint32_t twiddle_first) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= count) return;
  const uint32_t block = thread / third, column = thread % third;
  Fr* at = values + (block * 3 * third + column);
  const Fr* low = powers + 1;
  const Fr* high = low + (1u << low_bits);
  const Fr twiddle = load(low + (column & ((1u << low_bits) - 1))) * load(high + (column >> low_bits));
  const Fr twiddle2 = twiddle.squared();
  Fr a = load(at), b = load(at + third), c = load(at + 2 * third);
  if (twiddle_first) b = b * twiddle, c = c * twiddle2;
  const Fr turned = (b - c) * load(powers);
  const Fr first = a + b + c;
  Fr second = a - c + turned, last = a - b - turned;
  if (!twiddle_first) second = second * twiddle, last = last * twiddle2;
  at[0] = first;
  at[third] = second;
  at[2 * third] = last;
}

// values[i] *= factors[i].
// Launch: grid ceil(count / 256), block 256. Shared: none. Registers: at most 64.
// Data: Montgomery, in place, any order. Oracle: ark_ff
extern "C" __global__ void __launch_bounds__(256) ntt_multiply_kernel(Fr* values, const Fr* factors, uint32_t count) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread < count) values[thread] = load(values + thread) * load(factors + thread);
}
