// Large zeroed memory from the operating system.
#pragma once

#include <cstddef>
#include <utility>

#include "multiverse/base/status.h"

namespace multiverse {

// Anonymous memory, page-aligned, zero, taken from the machine page by page as it is first written (so a large pool
// that is little used costs little). Huge pages where the system grants them.
class Buffer {
 public:
  // The error says how much was asked for.
  static Result<Buffer> allocate(std::size_t bytes);

  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer();

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace multiverse
