// Arrays on the device, for tests that run on a GPU and in the emulation.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#ifndef MULTIVERSE_CUDA_EMULATION
#include <cuda_runtime_api.h>
#endif

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <stdexcept>

#include "multiverse/kernels/cuda/cache.h"
#include "multiverse/kernels/cuda/linear.h"
#include "multiverse/kernels/cuda/stream.h"
#include "multiverse/kernels/linear.h"

#include "tests/support/cuda/small_floats.h"

namespace multiverse::kernels::cuda {

#ifdef MULTIVERSE_CUDA_EMULATION
inline constexpr bool kEmulated = true;
inline bool has_device() {
  return true;
}
inline void* device_allocate(std::size_t bytes) {
  void* data = std::aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
  std::memset(data, 0xFF, bytes);
  return data;
}
inline void device_free(void* data) {
  std::free(data);
}
inline void device_copy(void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}
inline int multiprocessors() {
  return 2;
}
inline Stream test_stream() {
  return nullptr;
}
#else
inline constexpr bool kEmulated = false;
inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}
inline bool has_device() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}
inline void* device_allocate(std::size_t bytes) {
  void* data = nullptr;
  check(cudaMalloc(&data, bytes + 256));
  check(cudaMemset(data, 0xFF, bytes));  // NaN as float and as bfloat16
  return data;
}
inline void device_free(void* data) {
  cudaFree(data);
}
inline void device_copy(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault));  // waits for the kernels before
}
inline int multiprocessors() {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
  return count;
}
// One that cudaMemcpy waits for.
inline Stream test_stream() {
  static const cudaStream_t stream = [] {
    cudaStream_t made = nullptr;
    check(cudaStreamCreate(&made));
    return made;
  }();
  return stream;
}
#endif

// A test that needs a device skips without one, or fails where MULTIVERSE_GPU_TESTS=1 says that there must be one.
class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (has_device()) return;
    const char* wanted = std::getenv("MULTIVERSE_GPU_TESTS");
    if (wanted != nullptr && std::string(wanted) == "1") FAIL() << "MULTIVERSE_GPU_TESTS=1, but no GPU was found";
    GTEST_SKIP() << "no GPU was found";
  }

  static unsigned fresh_seed() {
    const unsigned seed = std::random_device{}();
    std::printf("seed %u\n", seed);
    return seed;
  }
};

template <class T>
class DeviceArray {
 public:
  // Poisoned with bits that are NaN.
  explicit DeviceArray(std::size_t size) : size_(size), data_(device_allocate(size * sizeof(T)), device_free) {}
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    if (!values.empty()) device_copy(data(), values.data(), size_ * sizeof(T));
  }
  T* data() const { return static_cast<T*>(data_.get()); }
  std::vector<T> host() const {
    std::vector<T> out(size_);
    if (size_ > 0) device_copy(out.data(), data(), size_ * sizeof(T));
    return out;
  }

 private:
  std::size_t size_;
  std::unique_ptr<void, void (*)(void*)> data_;
};

// What linear() wants besides operands, for so many blocks.
class LinearMemory {
 public:
  LinearMemory(std::int32_t blocks, std::int32_t max_outputs)
      : blocks_(blocks),
        partials_(static_cast<std::size_t>(linear_partials(blocks))),
        arrivals_(std::vector<std::int32_t>(static_cast<std::size_t>(linear_arrivals(max_outputs)), 0)) {}
  LinearScratch args() const { return {partials_.data(), arrivals_.data(), blocks_}; }
  // As the next layer wants it.
  bool is_clean() const {
    const auto arrivals = arrivals_.host();
    return std::count(arrivals.begin(), arrivals.end(), 0) == static_cast<std::ptrdiff_t>(arrivals.size());
  }

 private:
  std::int32_t blocks_;
  DeviceArray<float> partials_;
  DeviceArray<std::int32_t> arrivals_;
};

// Normal numbers with outliers, rounded to bfloat16.
inline std::vector<Bf16> random_bf16(std::mt19937& random, std::size_t size, float deviation = 1.0F,
                                     float outlier = 30.0F) {
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<Bf16> out(size);
  for (Bf16& x : out) x = to_bfloat16(normal(random) * (random() % 256 == 0 ? outlier : 1.0F));
  return out;
}

inline double value(Bf16 bits) {
  return static_cast<double>(from_bfloat16(bits));
}

// Element i of a key or value in the cache: `row` points to its numbers, `scale` to its scale where the type has one.
inline double cached_value(CacheType type, const unsigned char* row, const unsigned char* scale, std::size_t i) {
  std::uint16_t bits = 0;
  if (type == CacheType::kFp8) {
    float factor = 0.0F;
    std::memcpy(&factor, scale, sizeof factor);
    return static_cast<double>(E4m3::decode(row[i])) * static_cast<double>(factor);
  }
  std::memcpy(&bits, row + 2 * i, sizeof bits);
  return type == CacheType::kFp16 ? static_cast<double>(Fp16::decode(bits)) : value(bits);
}

inline const char* name_of(CacheType type) {
  return type == CacheType::kFp8 ? "fp8" : type == CacheType::kFp16 ? "fp16" : "bf16";
}
inline constexpr CacheType kCacheTypes[] = {CacheType::kBf16, CacheType::kFp16, CacheType::kFp8};

}  // namespace multiverse::kernels::cuda
