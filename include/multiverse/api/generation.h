// One request for generation under way: from its job to the answer's bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "multiverse/api/job.h"
#include "multiverse/api/served_model.h"
#include "multiverse/base/clock.h"
#include "multiverse/base/status.h"
#include "multiverse/engine/engine.h"

namespace multiverse {

// What happened to a generation's branches, for metrics.
struct BranchFacts {
  struct Fork {
    std::int32_t width = 0;  // paths
    std::int32_t depth = 1;  // 1 for a fork of the root
    std::int32_t waves = 1;  // groups of paths that may run at once
  };
  std::vector<Fork> forks;
  std::vector<Nanoseconds> join_waits;  // from the first end of a fork's paths to the last
};

// One thread. Destroying it cancels what still runs.
class Generation {
 public:
  // Hands the job's prompts to the engine; where one is refused, none runs. `created`: Unix seconds.
  static Result<std::unique_ptr<Generation>> start(Job job, std::shared_ptr<const ServedModel> model, Engine& engine,
                                                   std::int64_t created);
  virtual ~Generation() = default;

  // Takes in what the engine has sent, waiting at most `timeout` for something. False at the end, which is also when a
  // prompt failed: error() says so.
  virtual bool wait(Nanoseconds timeout) = 0;
  // Has `on_events` called when wait() would find something: see RequestStream::notify.
  virtual void notify(const std::function<void()>& on_events) = 0;
  // The client is gone.
  virtual void cancel() = 0;
  // Ends it with an error of ours (drain).
  virtual void fail(Error error) = 0;
  virtual const std::optional<Error>& error() const = 0;

  // Streaming: the SSE events that became due since the last call, whole ones, each `data: …\n\n`. The first call gives
  // what opens the stream; the last (after wait returned false) the finish, usage and `[DONE]`, or the error event.
  virtual std::string take_events() = 0;
  // Not streaming: the answer, once wait has returned false without an error.
  virtual std::string body() = 0;

  // Once it has ended without an error: "length" where any choice was, else "stop".
  virtual const char* finish_reason() const = 0;
  // Of all prompts and samples, for metrics and the access log.
  virtual std::int64_t prompt_tokens() const = 0;
  virtual std::int64_t completion_tokens() const = 0;  // received so far
  virtual BranchFacts take_branch_facts() = 0;         // since the last call
  // Once it has ended: of the samples that ended; the longest wait for admission.
  virtual const ParallelUsage& parallel() const = 0;
  virtual Nanoseconds queued() const = 0;
  virtual const std::vector<std::uint64_t>& weights_versions() const = 0;
};

// Draws one token, to know that the engine works. Blocks.
Status warm_up(Engine& engine);

}  // namespace multiverse
