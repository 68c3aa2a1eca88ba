// A step's draws as the sampling kernel takes them.
#pragma once

#include <cstdint>
#include <vector>

#include "multiverse/exec/step.h"
#include "multiverse/kernels/cuda/sampling.h"

namespace multiverse {

struct SamplePlan {
  std::vector<std::int32_t> logit_rows;          // rows whose logits are wanted, rising
  std::vector<std::int32_t> order;               // tasks[i] is of samples[order[i]]; by rising logits_row
  std::vector<kernels::cuda::SampleTask> tasks;  // logits_row: index into logit_rows
  std::vector<kernels::cuda::TokenBias> biases;
  std::vector<kernels::cuda::TokenCount> history;
  std::vector<std::int32_t> banned;
  std::vector<std::uint32_t> allowed;
  std::int32_t num_top = 0;  // entries of all tasks' top lists
};

// Masks that would leave no token are dropped here, as on CPU: first `banned`, then `allowed`.
SamplePlan plan_samples(const StepPlan& plan, std::int32_t vocab_size);

}  // namespace multiverse
