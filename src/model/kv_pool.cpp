#include "model/kv_pool.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "multiverse/exec/step.h"

namespace multiverse {
namespace {

static_assert(kPageTokens == kernels::kPageTokens);

constexpr std::int64_t kMaxPages = std::int64_t{1} << 26;  // a billion tokens
constexpr std::int64_t kDefaultContexts = 64;

}  // namespace

std::int64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  std::int64_t kib = 0;
  while (file >> name >> kib) {
    std::getline(file, unit);
    if (name == "MemAvailable:") return kib * 1024;
  }
  return std::int64_t{1} << 30;
}

KvPool::KvPool(Buffer buffer, std::int32_t num_pages, const ModelConfig& config)
    : buffer_(std::move(buffer)),
      num_pages_(num_pages),
      shape_{nullptr, num_pages, static_cast<std::int32_t>(config.num_kv_heads),
             static_cast<std::int32_t>(config.head_dim)} {}

Result<KvPool> KvPool::allocate(const ModelConfig& config, std::int64_t bytes) {
  const kernels::PagedKv shape{nullptr, 0, static_cast<std::int32_t>(config.num_kv_heads),
                               static_cast<std::int32_t>(config.head_dim)};
  const std::int64_t page_bytes =
      static_cast<std::int64_t>(shape.page_floats() * sizeof(float)) * config.num_kv_heads * config.num_layers;
  if (bytes < 0) return invalid_argument(concat("kv_cache_bytes is ", bytes, ", below 0"), "kv_cache_bytes");
  // The system would promise more than it has and end the process when the pages are first used.
  if (const std::int64_t available = available_memory(); bytes > available) {
    return invalid_argument(
        concat("kv_cache_bytes is ", bytes, "; this machine has ", available, " bytes available: lower kv_cache_bytes"),
        "kv_cache_bytes");
  }
  std::int64_t pages = bytes / page_bytes;
  if (bytes == 0) {
    const std::int64_t enough = kDefaultContexts * ((config.max_position + kPageTokens - 1) / kPageTokens);
    pages = std::max<std::int64_t>(1, std::min(available_memory() / 4 / page_bytes, enough));
  }
  if (pages < 1) {
    return invalid_argument(concat("kv_cache_bytes is ", bytes, "; one page of this model needs ", page_bytes),
                            "kv_cache_bytes");
  }
  pages = std::min(pages, kMaxPages);
  Result<Buffer> buffer = Buffer::allocate(static_cast<std::size_t>(pages * page_bytes));
  if (!buffer.ok()) {
    return Error{ErrorCode::kInternal, concat("the KV pool: ", buffer.error().message, "; lower kv_cache_bytes"),
                 "kv_cache_bytes"};
  }
  return KvPool(std::move(buffer).value(), static_cast<std::int32_t>(pages), config);
}

kernels::PagedKv KvPool::layer(std::int64_t index) const {
  kernels::PagedKv kv = shape_;
  kv.base =
      static_cast<float*>(buffer_.data()) + static_cast<std::size_t>(index) * static_cast<std::size_t>(num_pages_) *
                                                static_cast<std::size_t>(shape_.num_kv_heads) * shape_.page_floats();
  return kv;
}

}  // namespace multiverse
