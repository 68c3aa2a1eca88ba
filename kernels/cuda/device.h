// What the kernels take from the device: loads, copies, matrix instructions, warp exchanges, launches. The same names
// are defined by tests/support/cuda/emulation.h, which runs a kernel on the CPU, a fiber for each thread: so every
// kernel is tested where there is no GPU.
#pragma once

#ifdef MULTIVERSE_CUDA_EMULATION
#include "tests/support/cuda/emulation.h"
#else

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace multiverse::kernels::cuda {

// ---- launches

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

struct LaunchShape {
  unsigned blocks_x = 1, blocks_y = 1;
  unsigned threads = 128;
  std::size_t shared_bytes = 0;
};

// Shared memory that a block may have.
inline int most_shared_bytes() {
  static const int bytes = [] {
    int device = 0, most = 0;
    check(cudaGetDevice(&device), "the current device");
    check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "shared memory");
    return most;
  }();
  return bytes;
}

// The kernel may start before its predecessor in the stream ends: it calls wait_for_previous() before it touches what
// others wrote. Throws std::runtime_error.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
            const Arguments&... arguments) {
  constexpr std::size_t kDefaultShared = 48 << 10;
  constexpr std::size_t kMostStatic = 16 << 10;
  if (shape.shared_bytes + kMostStatic > kDefaultShared) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shape.shared_bytes)), name);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(shape.blocks_x, shape.blocks_y);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  static const bool overlaps = [] {
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    return major >= 9;
  }();
  config.attrs = &attribute;
  config.numAttrs = overlaps ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name);
}

// Waits until all that ran before in the stream has ended and its writes are visible. Every kernel calls it in at least
// one block, so what ran before has waited too.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel in the stream may start, as far as its wait_for_previous().
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// ---- memory

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// The block's dynamic shared memory, 128-byte aligned.
__device__ __forceinline__ unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char memory[];
  return memory;
}

// 16 bytes that are read once: past the first-level cache.
__device__ __forceinline__ uint4 load_streaming(const void* pointer) {
  uint4 out;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
               : "l"(pointer));
  return out;
}

// Adds, and orders: what this thread's block wrote before its last barrier is seen by whoever sees the addition, and
// what other blocks wrote before additions that this one sees may be read after the block's next barrier.
__device__ __forceinline__ int arrive(int* place) {
  int old;
  asm volatile("atom.add.acq_rel.gpu.s32 %0, [%1], 1;" : "=r"(old) : "l"(place) : "memory");
  return old;
}
// What another block of this launch may have written.
template <class T>
__device__ __forceinline__ T load_coherent(const T* pointer) {
  return __ldcg(pointer);
}

// 16 bytes from global to shared memory, zeros where not `valid`. Arrives with copy_wait.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// All of this thread's groups but the last `Pending` have arrived.
template <int Pending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// ---- numbers

__device__ __forceinline__ float from_bf16(unsigned bits) {
  return __uint_as_float(bits << 16);
}
// Two floats, rounded to nearest even; the first in the low half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  unsigned out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
// The same to float16, whose largest number stands for all that are larger.
__device__ __forceinline__ unsigned pack_fp16(float low, float high) {
  constexpr float kLargest = 65504.0F;
  const auto cut = [](float x) { return x > kLargest ? kLargest : x < -kLargest ? -kLargest : x; };  // NaN stays
  unsigned out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(cut(high)), "f"(cut(low)));
  return out;
}
// Two floats to e4m3, rounded to nearest even, the largest number (448) for all that are larger; the first in the low 8
// of 16 bits. And back, exactly, to two numbers of float16. Compute capability 8.9.
__device__ __forceinline__ unsigned pack_e4m3(float low, float high) {
  unsigned short out = 0;
#if __CUDA_ARCH__ >= 890
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(out) : "f"(high), "f"(low));
#endif
  return out;
}
__device__ __forceinline__ unsigned e4m3_to_fp16(unsigned bits) {
  unsigned out = 0;
#if __CUDA_ARCH__ >= 890
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(out) : "h"(static_cast<unsigned short>(bits)));
#endif
  return out;
}
// Bytes 0, 2, 1, 3.
__device__ __forceinline__ unsigned swap_middle_bytes(unsigned bits) {
  return __byte_perm(bits, bits, 0x3120);
}
__device__ __forceinline__ unsigned float_as_uint(float x) {
  return __float_as_uint(x);
}
__device__ __forceinline__ float uint_as_float(unsigned bits) {
  return __uint_as_float(bits);
}
template <class T>
__device__ __forceinline__ T atomic_add(T* place, T value) {
  return atomicAdd(place, value);
}
// 2^x to about 2 units in the last place; -infinity gives 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

// ---- warps

__device__ __forceinline__ void sync_block() {
  __syncthreads();
}
// The value of lane (lane ^ mask).
template <class T>
__device__ __forceinline__ T exchange(T value, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFU, value, mask);
}

// The value of that lane.
template <class T>
__device__ __forceinline__ T broadcast(T value, int lane) {
  return __shfl_sync(0xFFFFFFFFU, value, lane);
}

// sum (16, 8) += a (16, 16) · b (16, 8), bfloat16 with float32 sums, in the fragments of mma.m16n8k16: lane 4g + t has
// a: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), pairs of neighbours in k; b: k = 2t and 2t + 8 of column g;
// sum: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ __forceinline__ void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                             unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same with a and b in float16.
__device__ __forceinline__ void multiply_add_fp16(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                                  unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four 8×8 matrices of 16-bit numbers; lanes 8i … 8i + 7 point to the rows of matrix i. Lane 4g + t gets the numbers
// 2t, 2t + 1 of row g of each; transposed: of column g.
__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(unsigned (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

}  // namespace multiverse::kernels::cuda

#endif
