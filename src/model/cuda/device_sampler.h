// The draws of a step, on the device.
#pragma once

#include <cstdint>

#include "multiverse/exec/step.h"
#include "multiverse/kernels/cuda/sampling.h"

#include "model/cuda/device.h"
#include "model/cuda/sample_plan.h"

namespace multiverse {

// Owns the memory that draws need. For each step begin(), then draw() for all its logits, then take(). Throws
// ExecutionError.
class DeviceSampler {
 public:
  // most_rows: of logits that stand in memory at once.
  DeviceSampler(Device& device, std::int32_t vocab_size, std::int32_t most_rows);

  // uploaded: the plan's lists on the device. The plan stays valid until take().
  void begin(const SamplePlan& plan, const kernels::cuda::SamplingArgs& uploaded);
  // Enqueues the draws from the logits rows [first, first + count), which `logits` (count, vocab_size) holds.
  void draw(const float* logits, std::int32_t first, std::int32_t count);
  // Waits for all that is enqueued; also what the device took for it goes into `result`.
  void take(const StepPlan& step, StepResult& result);

 private:
  Device& device_;
  const std::int32_t vocab_size_, most_rows_;
  const SamplePlan* plan_ = nullptr;      // of this step
  kernels::cuda::SamplingArgs uploaded_;  // for it
  Device::Memory work_, slices_, filters_;
  Device::Memory outcomes_, outcomes_host_;  // of all tasks, then the entries of their top lists
  std::int64_t capacity_ = 0, bytes_ = 0;    // of the outcomes
};

}  // namespace multiverse
