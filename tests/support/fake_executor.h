// An executor without a model: it really stores what each slot was given and really looks at what each row may see, and
// draws a token that is a function of just that. So a wrong page, position or visibility changes the text.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "multiverse/exec/executor.h"

namespace multiverse::testing {

// A token that a row sees, in context order.
struct SeenToken {
  TokenId token = -1;
  std::int32_t position = -1;
  bool operator==(const SeenToken&) const = default;
};

// Draws the next token after what is seen. `key` are the draw's random numbers' name.
using Policy = std::function<TokenId(const std::vector<SeenToken>& seen, const RandomKey& key)>;

// Probabilities of structured_policy() where the grammar leaves a choice.
struct Habits {
  double noise = 0.0;          // any token at all
  double more_outlines = 0.6;  // another outline in a goal; 0.98: forks of up to a hundred
  double block = 0.04, end_path = 0.10, end_of_text = 0.02;  // in the text of a path or of the root
};

// Writes structured text: blocks open, fork, nest, close, or (with noise) break the grammar in every way. A function of
// what is seen and of the key's seed alone.
Policy structured_policy(Habits habits);
inline Policy structured_policy(double noise) {
  return structured_policy(Habits{.noise = noise});
}

class FakeExecutor final : public Executor {
 public:
  FakeExecutor(std::int32_t num_pages, Policy policy, std::int32_t max_position = 1 << 20);

  const ExecutorInfo& info() const override { return info_; }
  // CHECKs the plan against the rules of exec/step.h.
  void execute(const StepPlan& plan, StepResult& result) override;

  std::int64_t steps = 0;
  std::int64_t rows = 0;
  std::int64_t seen_slots = 0;                       // slots that items read, each item once: what attention must load
  std::function<void(const StepPlan&)> before_step;  // may throw ExecutionError

  // Weights by number, 1 at first: load_weights("7") gives the seventh, any other text an error. Each slot remembers
  // the weights that it was written by.
  Result<std::unique_ptr<LoadedWeights>> load_weights(const std::string& model_dir) override;
  void use_weights(std::unique_ptr<LoadedWeights> weights) override;
  std::function<void()> before_load;  // on the thread that loads
  int weights = 1;
  std::int64_t stale_slots = 0;  // seen slots that other weights than the step's had written

 private:
  const ExecutorInfo info_;
  const Policy policy_;
  std::vector<SeenToken> slots_;
  std::vector<int> weights_of_slots_;
};

// The log-probability that the fake reports for a token after what is seen.
float fake_logprob(const std::vector<SeenToken>& seen, TokenId token);

}  // namespace multiverse::testing
