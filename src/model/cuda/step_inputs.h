// A step's arrays, sent to the device in one pack.
#pragma once

#include <cstdint>
#include <vector>

#include "multiverse/exec/step.h"
#include "multiverse/kernels/cuda/attention.h"
#include "multiverse/kernels/cuda/sampling.h"

#include "model/cuda/attention_plan.h"
#include "model/cuda/sample_plan.h"
#include "model/cuda/step_upload.h"

namespace multiverse {

// Where they lie on the device.
struct StepInputs {
  const std::int32_t* tokens = nullptr;
  const std::int32_t* positions = nullptr;
  const std::int32_t* slots = nullptr;
  const std::int32_t* logit_rows = nullptr;
  std::vector<const kernels::cuda::AttentionPlan*> passes;
  kernels::cuda::SamplingArgs sampling;  // tasks and their lists alone
};

// `capacity`: rows and logits rows that are sent; those beyond the plan's are padding.
std::int64_t step_input_bytes(const StepPlan& plan, const SamplePlan& samples, const std::vector<AttentionPass>& passes,
                              std::int32_t capacity);
// Enqueues the copy. `pack` has room for step_input_bytes().
StepInputs upload_step(const StepPlan& plan, const SamplePlan& samples, const std::vector<AttentionPass>& passes,
                       StepUpload& pack, std::int32_t capacity);

}  // namespace multiverse
