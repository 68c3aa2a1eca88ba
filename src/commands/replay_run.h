// Recorded answers forced through an engine, and what came of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/engine/engine.h"
#include "multiverse/scheduler/recording.h"

namespace multiverse {

// One pass over a text. Its request was alone in the engine.
struct ReplayRun {
  std::int64_t passes = 0;          // forward passes, prefill's among them
  std::int64_t prefill_passes = 0;  // of these, as many as the prompt's uncached tokens fill
  double seconds = 0;               // from the first token to the last: decoding alone
  double all_seconds = 0;           // from the submission on
  std::vector<float> logprobs;      // of each token of the text; NaN where there is none

  // Passes beyond those that the text's longest chain of draws needs. Prefill's last one makes the first draw.
  std::int64_t lost(std::int64_t steps) const { return passes - (steps + prefill_passes - 1); }
};

// Runs one text after another, each alone. One thread.
class Replayer {
 public:
  // `limits`: those that the recordings were read under.
  Replayer(Engine& engine, StructureLimits limits) : engine_(engine), limits_(limits) {}

  // The answer as if the model drew it, `mode` parallel or serial. Requests share what the prefix index has of the same
  // salt. The error says where the engine couldn't follow the recording.
  Result<ReplayRun> force(const std::shared_ptr<const Recording>& recording, Mode mode, const std::string& cache_salt);
  // The same by `count` requests at once that share nothing, each over a prefix that was computed before: the seconds
  // from the first token drawn to the last. The error says where the engine couldn't follow.
  Result<double> force_batch(const std::shared_ptr<const Recording>& recording, Mode mode, std::int32_t count);
  // Pages that so many at once fill at most, and those that there are.
  std::int64_t pages_needed(const Recording& recording, std::int32_t count) const;
  std::int64_t pages() const;
  // The whole text as a prompt: the log-probabilities of reading it.
  Result<ReplayRun> prefill(const Recording& recording);

 private:
  GenerateRequest forced(const std::shared_ptr<const Recording>& recording, Mode mode,
                         const std::string& cache_salt) const;
  Result<ReplayRun> run(GenerateRequest request, const Recording& recording);

  Engine& engine_;
  const StructureLimits limits_;
};

// The greatest difference of two runs' log-probabilities where both have one.
struct Difference {
  double maximum = 0;
  std::int32_t token = -1;  // index in the text; -1: nothing was compared
  std::int64_t compared = 0;
};
Difference difference(const ReplayRun& one, const ReplayRun& other);

// The blocks of the root that fork, one after another: [begin, end) of the text, from the token that opens the block to
// the one that closes it.
struct TextRange {
  std::int32_t begin = 0, end = 0;
};
std::vector<TextRange> forking_blocks(const std::vector<TokenId>& text, const Dialect& dialect,
                                      const StructureLimits& limits);

}  // namespace multiverse
