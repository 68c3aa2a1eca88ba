// Runs CUDA kernels on the CPU, for tests: what kernels/cuda/device.h declares, with a fiber for each thread of a
// block, blocks one after another. Exact in what it computes (but for the rounding of sums inside a matrix
// instruction); it says nothing of speed. Made to show mistakes: fibers run in an order that changes from launch to
// launch, asynchronous copies arrive no sooner than they are waited for, shared memory starts as NaN.
#pragma once

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#include "tests/support/cuda/small_floats.h"

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's own words
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static
// NOLINTEND(bugprone-reserved-identifier)

struct CUstream_st;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

namespace multiverse::kernels::cuda {

struct LaunchShape {
  unsigned blocks_x = 1, blocks_y = 1;
  unsigned threads = 128;
  std::size_t shared_bytes = 0;
};

namespace emulation {

inline int shared_limit = 227 << 10;  // of a Hopper block; tests make it smaller

struct Index {
  unsigned x = 0, y = 0;
};
inline thread_local Index thread_index, block_index, block_size, grid_size;

// Runs body() for every thread of every block. Not reentrant.
void run(const LaunchShape& shape, const std::function<void()>& body);
// What the lanes of this thread's warp put, in their order; valid until the warp's next exchange.
inline constexpr std::size_t kSlotBytes = 32;
const unsigned char* exchange_bytes(const void* mine, std::size_t bytes);
void sync_block();
unsigned char* shared_memory();
void copy_async(void* to, const void* from, bool valid);
void copy_commit();
void copy_wait(std::size_t pending);

template <class T>
T slot(const unsigned char* slots, unsigned lane) {
  T out;
  std::memcpy(&out, slots + lane * kSlotBytes, sizeof out);
  return out;
}

}  // namespace emulation

template <class... Parameters, class... Arguments>
void launch(const char*, void (*kernel)(Parameters...), const LaunchShape& shape, CUstream_st*,
            const Arguments&... arguments) {
  emulation::run(shape, [&] { kernel(static_cast<Parameters>(arguments)...); });
}

inline int most_shared_bytes() {
  return emulation::shared_limit;
}
inline void wait_for_previous() {}
inline void let_next_start() {}
inline unsigned char* shared_memory() {
  return emulation::shared_memory();
}
inline uint4 load_streaming(const void* pointer) {
  uint4 out;
  std::memcpy(&out, pointer, sizeof out);
  return out;
}
inline int arrive(int* place) {
  return (*place)++;
}
template <class T>
T load_coherent(const T* pointer) {
  return *pointer;
}
inline void copy_async(void* shared, const void* global, bool valid) {
  emulation::copy_async(shared, global, valid);
}
inline void copy_commit() {
  emulation::copy_commit();
}
template <int Pending>
void copy_wait() {
  emulation::copy_wait(Pending);
}

inline float from_bf16(unsigned bits) {
  bits <<= 16;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}
inline unsigned to_bf16_bits(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isnan(value)) return 0x7FFF;
  return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
}
inline unsigned pack_bf16(float low, float high) {
  return to_bf16_bits(low) | to_bf16_bits(high) << 16;
}
inline unsigned pack_fp16(float low, float high) {
  const auto bits = [](float x) {
    constexpr float kLargest = 65504.0F;
    return Fp16::encode(x > kLargest ? kLargest : x < -kLargest ? -kLargest : x);
  };
  return bits(low) | bits(high) << 16;
}
inline unsigned pack_e4m3(float low, float high) {
  return E4m3::encode(low) | E4m3::encode(high) << 8;
}
inline unsigned e4m3_to_fp16(unsigned bits) {
  return Fp16::encode(E4m3::decode(bits & 0xFF)) | Fp16::encode(E4m3::decode(bits >> 8 & 0xFF)) << 16;
}
inline unsigned swap_middle_bytes(unsigned bits) {
  return (bits & 0xFF0000FFU) | (bits & 0xFF00U) << 8 | (bits >> 8 & 0xFF00U);
}
inline float exp2_fast(float x) {
  return std::exp2(x);
}

inline void sync_block() {
  emulation::sync_block();
}
template <class T>
T exchange(T value, int mask) {
  const unsigned lane = emulation::thread_index.x % 32;
  return emulation::slot<T>(emulation::exchange_bytes(&value, sizeof value), lane ^ static_cast<unsigned>(mask));
}
template <class T>
T broadcast(T value, int lane) {
  return emulation::slot<T>(emulation::exchange_bytes(&value, sizeof value), static_cast<unsigned>(lane));
}
void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1);
void multiply_add_fp16(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1);
void load_matrices(unsigned (&out)[4], const void* row);
void load_matrices_transposed(unsigned (&out)[4], const void* row);

// CUDA's own functions that kernels call.
using ::fabsf;
using ::fmaxf;
using std::isfinite;
inline float rsqrtf(float x) {
  return 1.0F / std::sqrt(x);
}
inline void sincosf(float x, float* sine, float* cosine) {
  *sine = std::sin(x);
  *cosine = std::cos(x);
}
inline unsigned float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
template <class T>
T atomic_add(T* place, T value) {
  const T old = *place;
  *place = old + value;
  return old;
}

}  // namespace multiverse::kernels::cuda

#define threadIdx ::multiverse::kernels::cuda::emulation::thread_index
#define blockIdx ::multiverse::kernels::cuda::emulation::block_index
#define blockDim ::multiverse::kernels::cuda::emulation::block_size
#define gridDim ::multiverse::kernels::cuda::emulation::grid_size
