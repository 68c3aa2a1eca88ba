// The pages of keys and values, in memory of the host.
#pragma once

#include <cstdint>

#include "multiverse/config/model_config.h"
#include "multiverse/kernels/attention.h"

#include "model/buffer.h"

namespace multiverse {

// Layer by layer, each with all pages. Float32.
class KvPool {
 public:
  // bytes 0: a quarter of the memory that the machine has available, but no more than 64 contexts of max_position.
  static Result<KvPool> allocate(const ModelConfig& config, std::int64_t bytes);

  std::int32_t num_pages() const { return num_pages_; }
  std::int64_t bytes() const { return static_cast<std::int64_t>(buffer_.bytes()); }
  kernels::PagedKv layer(std::int64_t index) const;

 private:
  KvPool(Buffer buffer, std::int32_t num_pages, const ModelConfig& config);

  Buffer buffer_;
  std::int32_t num_pages_;
  kernels::PagedKv shape_;
};

// MemAvailable of /proc/meminfo in bytes; 1 GiB where it cannot be read.
std::int64_t available_memory();

}  // namespace multiverse
