// The interface between the scheduler's plans and a model.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "multiverse/exec/step.h"

namespace multiverse {

// The machine's failure in a step (out of memory, a device error). The engine catches it: the step's requests fail.
class ExecutionError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct ExecutorInfo {
  std::string model_type;         // "qwen2", …
  std::int32_t vocab_size = 0;    // logits a row has
  std::int32_t num_pages = 0;     // pages of the KV pool; ids are [0, num_pages)
  std::int32_t max_rows = 0;      // rows a step may have
  std::int32_t max_position = 0;  // positions are < this
  std::int64_t weight_bytes = 0;
  std::int64_t kv_bytes = 0;
};

// Owned by the engine and called from its thread alone.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual const ExecutorInfo& info() const = 0;
  // Computes the plan. `result` is overwritten. Throws ExecutionError; the pool's other pages keep their content.
  virtual void execute(const StepPlan& plan, StepResult& result) = 0;
};

}  // namespace multiverse
