// What the HTTP side hands to the engine, and what it gets back. Native structs: no JSON, no text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "multiverse/base/clock.h"
#include "multiverse/base/status.h"
#include "multiverse/constrain/constraint.h"
#include "multiverse/dialect/structure.h"
#include "multiverse/exec/step.h"
#include "multiverse/scheduler/recording.h"

namespace multiverse {

using RequestId = std::uint64_t;

// How control tokens are treated.
enum class Mode {
  kParallel,  // fork and join; paths at once
  kSerial,    // the same tree, one path at a time: the same tokens
  kOff,       // control tokens are ordinary tokens
};

struct GenerateRequest {
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  std::uint64_t seed = 0;
  std::int32_t n = 1;                // samples of the prompt
  std::int32_t max_tokens = 0;       // generated tokens of a sample, all branches, forced ones included; 0 = what fits
  std::int32_t min_tokens = 0;       // no end token is drawn before this many
  std::vector<TokenId> stop_tokens;  // these end the reply like end-of-text, but cut the text before them ("stop")
  bool ignore_eos = false;
  std::shared_ptr<const Constraint> constraint;  // null: the reply may say anything
  Mode mode = Mode::kParallel;
  bool strict = false;
  StructureLimits limits;
  std::int32_t top_logprobs = -1;         // of generated tokens; -1: none
  std::int32_t prompt_top_logprobs = -1;  // of prompt tokens; -1: none
  std::int32_t priority = 0;              // lower first
  std::string cache_salt;                 // requests share prefixes only where this is equal
  std::optional<Nanoseconds> deadline;    // time from submission to the end
  // Instead of drawing: each branch gets the tokens that are recorded for it, forced ones too. `prompt` and `limits`
  // are the recording's; n = 1. A branch without further tokens waits; the sample ends with kLength at max_tokens,
  // which is the answer's size, and with kError where the recording can't be followed.
  std::shared_ptr<const Recording> recording;
};

enum class FinishReason { kStop, kLength, kCancelled, kError };

// ── Events, in the order in which they happened. A sample's tokens come branch by branch in their own order. ──

struct TokenEvent {
  std::int32_t sample = 0;
  std::int32_t branch = 0;  // handle within the sample; 0 is the root; given by ForkEvent
  TokenId token = 0;
  bool forced = false;  // written by the engine, not drawn
  bool end_of_text =
      false;             // an end token, which is no text: the reply ends here (in a path: where it stands in the text)
  float logprob = 0.0F;  // where wanted; forced tokens have none
  std::vector<TokenLogprob> top;
};
struct ForkEvent {
  std::int32_t sample = 0;
  std::int32_t parent = 0;
  struct Child {
    std::int32_t branch = 0;
    BranchAddress address;
    std::string label;
  };
  std::vector<Child> children;  // in outline order. Their text comes after all that the parent wrote so far.
};
// The branch ended; its last tokens came before. `cut`: it was cancelled by a cut and its text is not part of the
// reply.
struct BranchEndEvent {
  std::int32_t sample = 0;
  std::int32_t branch = 0;
};
// All children of the parent's open fork ended; the parent goes on after them.
struct JoinEvent {
  std::int32_t sample = 0;
  std::int32_t parent = 0;
};
// Once per request, before its first TokenEvent, where prompt_top_logprobs ≥ 0: one entry a prompt token, nullopt for
// the first token and for forced ones.
struct PromptEvent {
  struct Entry {
    float logprob = 0.0F;
    std::vector<TokenLogprob> top;
  };
  std::vector<std::optional<Entry>> logprobs;
};

// Counters of a sample, names as in the API.
using ParallelUsage = TreeStatistics;
struct SampleEndEvent {
  std::int32_t sample = 0;
  FinishReason reason = FinishReason::kStop;
  std::int64_t completion_tokens = 0;
  ParallelUsage parallel;
  std::vector<std::uint64_t> weights_versions;  // of the weights that drew tokens of the request so far, ascending
};
// The last event of a request.
struct FinishedEvent {
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;  // prompt tokens found in the prefix index
  std::optional<Error> error;      // set: the request failed, samples without a SampleEndEvent have none
  Nanoseconds queued{0};           // from its arrival at the scheduler to its first admission, or to here
};

using Event =
    std::variant<PromptEvent, TokenEvent, ForkEvent, BranchEndEvent, JoinEvent, SampleEndEvent, FinishedEvent>;

}  // namespace multiverse
