// What an executor expects of a plan.
#pragma once

#include "multiverse/exec/executor.h"
#include "multiverse/exec/step.h"

namespace multiverse {

// CHECK-fails where the scheduler broke the contract of exec/step.h (indices, ranges, a row that sees nothing): going
// on would read or write other requests' memory. Throws ExecutionError for a token or position that the model does not
// have, which a mistake in checking a request could let through.
void check_plan(const StepPlan& plan, const ExecutorInfo& info);

}  // namespace multiverse
