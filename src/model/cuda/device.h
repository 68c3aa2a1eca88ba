// One GPU, as the executor uses it. The real one computes with libtorch (torch_device.cpp, the only file that includes
// its headers); tests have one that runs kernels on the CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "multiverse/base/status.h"
#include "multiverse/kernels/cuda/stream.h"

namespace multiverse {

// Used by one thread, as the executor is. Work is done in the order in which it is enqueued; what a function says of
// time is in that order. Throws ExecutionError where the device fails.
class Device {
 public:
  using Memory = std::shared_ptr<void>;  // freed with its last owner, which goes before the device does

  // Work that was captured once and is enqueued at once.
  class Graph {
   public:
    virtual ~Graph() = default;
    virtual void replay() = 0;
  };

  virtual ~Device() = default;

  // Before anything else on another thread than the one that opened the device.
  virtual void use() = 0;

  virtual std::string name() const = 0;
  virtual std::string versions() const = 0;  // of driver and libraries
  virtual int multiprocessors() const = 0;
  virtual int compute_capability() const = 0;  // 90 for 9.0
  virtual std::int64_t free_bytes() const = 0;
  virtual kernels::cuda::Stream stream() const = 0;

  // Of the device; 256-byte aligned, not cleared.
  virtual Memory allocate(std::int64_t bytes) = 0;
  // Of the host, page-locked: what upload() and download() take.
  virtual Memory allocate_pinned(std::int64_t bytes) = 0;
  // `from` and `to` stay untouched by the host until synchronize().
  virtual void upload(void* to, const void* from, std::int64_t bytes) = 0;
  virtual void download(void* to, const void* from, std::int64_t bytes) = 0;
  virtual void synchronize() = 0;
  // Seconds from the end of what was enqueued before begin_work() to the end of what is enqueued before end_work(),
  // which waits as synchronize() does.
  virtual void begin_work() = 0;
  virtual double end_work() = 0;

  // y (rows, outputs) = x (rows, inputs) · weights (outputs, inputs)ᵀ in bfloat16.
  virtual void multiply(const kernels::cuda::Bf16* x, const kernels::cuda::Bf16* weights, kernels::cuda::Bf16* y,
                        std::int64_t rows, std::int64_t outputs, std::int64_t inputs) = 0;
  // The same with y in float32.
  virtual void multiply_to_float(const kernels::cuda::Bf16* x, const kernels::cuda::Bf16* weights, float* y,
                                 std::int64_t rows, std::int64_t outputs, std::int64_t inputs) = 0;

  // What `work` enqueues, without doing it. `work` must have run once before.
  virtual std::unique_ptr<Graph> capture(const std::function<void()>& work) = 0;
};

// The memory as an array of T.
template <class T>
T* as(const Device::Memory& memory) {
  return static_cast<T*>(memory.get());
}

// The error says why the device can't serve: absent, too old, in use.
Result<std::unique_ptr<Device>> open_torch_device(int index);

}  // namespace multiverse
