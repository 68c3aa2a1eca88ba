// A step's small arrays, packed in page-locked memory and sent to the device in one copy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "multiverse/base/check.h"

#include "model/cuda/device.h"

namespace multiverse {

class StepUpload {
 public:
  explicit StepUpload(Device& device) : device_(device) {}

  // Begins a new pack with room for `bytes`. Pointers handed out before are void; the memory moves only where it must
  // grow, and then to at least twice its size.
  void begin(std::int64_t bytes) {
    used_ = 0;
    if (bytes <= capacity_) return;
    capacity_ = std::max(bytes, 2 * capacity_);
    on_device_ = device_.allocate(capacity_);
    on_host_ = device_.allocate_pinned(capacity_);
  }
  std::int64_t capacity() const { return capacity_; }

  // Room for `count` elements: `host` to write now, `device` where send() puts them.
  template <class T>
  struct Place {
    T* host = nullptr;
    const T* device = nullptr;
  };
  template <class T>
  Place<T> reserve(std::int64_t count) {
    const std::int64_t at = used_;
    used_ += padded<T>(count);
    CHECK(used_ <= capacity_, "a pack of ", used_, " bytes; there is room for ", capacity_);
    return {reinterpret_cast<T*>(static_cast<char*>(on_host_.get()) + at),
            reinterpret_cast<const T*>(static_cast<const char*>(on_device_.get()) + at)};
  }
  template <class T>
  const T* add(std::span<const T> values) {
    const Place<T> place = reserve<T>(static_cast<std::int64_t>(values.size()));
    if (!values.empty()) std::memcpy(place.host, values.data(), values.size_bytes());
    return place.device;
  }
  // Bytes that `count` elements take.
  template <class T>
  static std::int64_t padded(std::int64_t count) {
    constexpr std::int64_t kAlign = 16;
    return (count * static_cast<std::int64_t>(sizeof(T)) + kAlign - 1) / kAlign * kAlign;
  }

  void send() { device_.upload(on_device_.get(), on_host_.get(), used_); }

 private:
  Device& device_;
  Device::Memory on_device_, on_host_;
  std::int64_t capacity_ = 0, used_ = 0;
};

}  // namespace multiverse
