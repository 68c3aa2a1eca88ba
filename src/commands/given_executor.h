// An executor without a model, for counting steps: it computes nothing and answers what each draw is given.
#pragma once

#include "multiverse/base/check.h"
#include "multiverse/exec/executor.h"

namespace multiverse {

class GivenExecutor final : public Executor {
 public:
  explicit GivenExecutor(ExecutorInfo info) : info_(std::move(info)) {}

  const ExecutorInfo& info() const override { return info_; }
  void execute(const StepPlan& plan, StepResult& result) override {
    result.samples.clear();
    for (const SampleRequest& sample : plan.samples) {
      CHECK(sample.given >= 0, "a draw at row ", sample.row, " that is not given: only recordings run without a model");
      result.samples.push_back({sample.given, 0.0F, {}});
    }
  }

 private:
  const ExecutorInfo info_;
};

}  // namespace multiverse
