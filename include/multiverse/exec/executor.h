// The interface between the scheduler's plans and a model.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "multiverse/base/check.h"
#include "multiverse/base/status.h"
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

// Weights in the form that one executor computes with; that executor's alone to look into.
class LoadedWeights {
 public:
  virtual ~LoadedWeights() = default;
};

// Owned by the engine and called from its thread alone, load_weights() aside.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual const ExecutorInfo& info() const = 0;
  // Computes the plan. `result` is overwritten. Throws ExecutionError; the pool's other pages keep their content.
  virtual void execute(const StepPlan& plan, StepResult& result) = 0;

  // Other weights for the same model, from the Hugging Face files in `model_dir`. Any thread, while steps go on; holds
  // both sets in memory. The error names what differs: a setting of config.json, or the tensor that is missing, extra
  // or misshapen.
  virtual Result<std::unique_ptr<LoadedWeights>> load_weights(const std::string& /*model_dir*/) {
    return Error{ErrorCode::kUnsupported,
                 "weights can't be exchanged on this device while it serves; restart the server", "",
                 "reload_unsupported"};
  }
  // Computes with these from the next step on: what load_weights() of this executor gave. Keys and values in the pool
  // stay as they are.
  virtual void use_weights(std::unique_ptr<LoadedWeights> /*weights*/) {
    CHECK(false, "weights are given to an executor that loads none");
  }
};

}  // namespace multiverse
