// Kernels with planted errors, which the shim must catch, and probes of the shim itself. Never compiled for a device.
#include "../curve.cuh"

// Half of the block leaves before the barrier. Launch: any.
extern "C" __global__ void planted_exit_kernel(uint32_t* out) {
  if (threadIdx.x >= blockDim.x / 2) return;
  __syncthreads();
  out[0] = 1;
}

// The halves of the block wait at different barriers. Launch: any.
extern "C" __global__ void planted_barrier_kernel(uint32_t* out) {
  if (threadIdx.x >= blockDim.x / 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[0] = 1;
}

// Odd lanes miss the shuffle. Launch: any.
extern "C" __global__ void planted_shuffle_kernel(uint32_t* out) {
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = __shfl_xor_sync(~0u, threadIdx.x, 2);
}

// Thread t reads what thread t + 1 wrote; `barriers`: 0 none (a race), 1 __syncwarp (one across warps), 2 __syncthreads.
// Launch: block at most 256.
extern "C" __global__ void planted_race_kernel(uint32_t* out, uint32_t barriers) {
  SHARED_ARRAY(uint32_t, values, 256);
  values.set(threadIdx.x, threadIdx.x);
  if (barriers == 1) __syncwarp();
  if (barriers == 2) __syncthreads();
  out[threadIdx.x] = values.get((threadIdx.x + 1) % blockDim.x);
}

// Reads shared memory that nothing wrote. Launch: any.
extern "C" __global__ void planted_unwritten_kernel(uint32_t* out) {
  SHARED_ARRAY(uint32_t, values, 32);
  out[0] = values.get(5);
}

// Uses one element more of dynamic shared memory than launched with. Launch: shared blockDim * 4.
extern "C" __global__ void planted_overflow_kernel(uint32_t* out) {
  SHARED_DYNAMIC(uint32_t, values, blockDim.x + 1);
  values.set(threadIdx.x, 1);
  out[threadIdx.x] = values.get(threadIdx.x);
}

// Writes one element past the buffer. Launch: block 32, out of 32 elements.
extern "C" __global__ void planted_bounds_kernel(uint32_t* out) { out[threadIdx.x + 1] = 1; }

// What each thread saw of its warp: shuffle, shuffle up, xor, ballot, match, an atomic ticket in shared memory.
// Launch: block at most 256; out: 6 * blockDim.
extern "C" __global__ void probe_warp_kernel(uint32_t* out) {
  SHARED_ARRAY(uint32_t, ticket, 1);
  if (threadIdx.x == 0) ticket.set(0, 0);
  __syncthreads();
  const uint32_t t = threadIdx.x, value = t * t;
  out[6 * t + 0] = __shfl_sync(~0u, value, 5);
  out[6 * t + 1] = __shfl_up_sync(~0u, value, 3);
  out[6 * t + 2] = __shfl_xor_sync(~0u, value, 7);
  out[6 * t + 3] = __ballot_sync(~0u, t % 3 == 0);
  out[6 * t + 4] = __match_any_sync(~0u, t % 5);
  out[6 * t + 5] = ticket.add(0, 1);
}

// The block's order of execution: thread t writes the ticket it drew. Launch: grid blocks of 64; counter: 1, out: all threads.
extern "C" __global__ void probe_order_kernel(uint32_t* counter, uint32_t* out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(counter, 1);
}

// Every PTX instruction of the field code on operands (a, b, c) and a carry; in: 4 words, out: 2 words each (result, carry).
// Launch: one thread an operand triple.
extern "C" __global__ void probe_ptx_kernel(const uint32_t* in, uint32_t* out, uint32_t count) {
  const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const uint32_t a = in[4 * at], b = in[4 * at + 1], c = in[4 * at + 2], carry = in[4 * at + 3];
  uint32_t* o = out + 28 * at;
#define PROBE3(i, op) shim::ptx::carry_flag = carry, PTX3(op, o[2 * i], a, b), o[2 * i + 1] = shim::ptx::carry_flag
#define PROBE4(i, op) shim::ptx::carry_flag = carry, PTX4(op, o[2 * i], a, b, c), o[2 * i + 1] = shim::ptx::carry_flag
  PROBE3(0, "add.cc.u32");
  PROBE3(1, "addc.cc.u32");
  PROBE3(2, "addc.u32");
  PROBE3(3, "sub.cc.u32");
  PROBE3(4, "subc.cc.u32");
  PROBE3(5, "subc.u32");
  PROBE3(6, "mul.lo.u32");
  PROBE3(7, "mul.hi.u32");
  PROBE4(8, "mad.lo.cc.u32");
  PROBE4(9, "madc.lo.cc.u32");
  PROBE4(10, "madc.hi.cc.u32");
  PROBE4(11, "madc.hi.u32");
  PROBE4(12, "mad.hi.cc.u32");
  PROBE4(13, "madc.lo.u32");
}

// out[i] = (a + b, a - b, -a, a b, a / R, 2 a): six elements. Launch: one thread a pair.
template <class F>
__device__ void probe_field(const F* a, const F* b, F* out, uint32_t count) {
  const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  F* o = out + 6 * at;
  o[0] = a[at] + b[at];
  o[1] = a[at] - b[at];
  o[2] = -a[at];
  o[3] = a[at] * b[at];
  o[4] = a[at].to_integer();
  o[5] = a[at].doubled();
}
extern "C" __global__ void probe_fr_kernel(const Fr* a, const Fr* b, Fr* out, uint32_t n) { probe_field(a, b, out, n); }
extern "C" __global__ void probe_fq_kernel(const Fq* a, const Fq* b, Fq* out, uint32_t n) { probe_field(a, b, out, n); }

// out[i] = (a b, a^2, a + b, a - b, -a): five elements of Fq2. Launch: one thread a pair.
extern "C" __global__ void probe_fq2_kernel(const Fq2* a, const Fq2* b, Fq2* out, uint32_t count) {
  const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  Fq2* o = out + 5 * at;
  o[0] = a[at] * b[at];
  o[1] = a[at].squared();
  o[2] = a[at] + b[at];
  o[3] = a[at] - b[at];
  o[4] = -a[at];
}

// out[i] = (a + b mixed, a + b, -a + b mixed, 2 a, multiplier a): five sums. Launch: one thread a pair.
template <class F>
__device__ void probe_curve(const Affine<F>* a, const Affine<F>* b, Xyzz<F>* out, uint32_t count, uint32_t multiplier) {
  const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  // Denominators other than one: (a + b) - b.
  Xyzz<F> left = Xyzz<F>::from(a[at]);
  left.add(b[at], false);
  left.add(b[at], true);
  Xyzz<F> right = Xyzz<F>::from(b[at]);
  right.add(a[at], true);
  right.add(a[at], false);
  Xyzz<F>* o = out + 5 * at;
  for (int i = 0; i < 5; i++) o[i] = left;
  o[0].add(b[at], false);
  o[1].add(right);
  o[2] = Xyzz<F>::infinity();
  o[2].add(a[at], true);
  o[2].add(right);
  o[3].double_self();
  o[4].multiply(multiplier);
}
extern "C" __global__ void probe_g1_kernel(const G1Affine* a, const G1Affine* b, G1Xyzz* out, uint32_t n, uint32_t by) {
  probe_curve(a, b, out, n, by);
}
extern "C" __global__ void probe_g2_kernel(const G2Affine* a, const G2Affine* b, G2Xyzz* out, uint32_t n, uint32_t by) {
  probe_curve(a, b, out, n, by);
}
