// The JSON of answers: OpenAI's objects, with the fields that vLLM adds for token ids and prompt log-probabilities.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "multiverse/api/canonical_text.h"
#include "multiverse/api/job.h"

#include "api/json.h"

namespace multiverse {

// Of all prompts and samples: sums, and the greatest of what does not add up.
struct Usage {
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;
  std::int64_t completion_tokens = 0;
  ParallelUsage parallel;
  std::vector<std::uint64_t> weights_versions;  // ascending

  void add(const SampleEndEvent& sample);
};

// A tool call, or what a chunk adds to one.
struct ToolCallPart {
  std::int32_t index = 0;  // within the choice
  std::string id, name;    // "" where an earlier part said them
  std::string arguments;   // as the model wrote them
};

// What has been said of one choice: all of it, or what a chunk adds.
struct ChoicePart {
  std::string text;
  std::vector<CanonicalToken> tokens;
  const char* finish_reason = nullptr;
  std::string reasoning;                 // chat, where thoughts are told apart
  std::vector<ToolCallPart> tool_calls;  // chat; in order of their indices
  bool says_text() const { return !text.empty() || !reasoning.empty() || !tool_calls.empty(); }
};

// Makes the JSON of one answer. Immutable.
class AnswerWriter {
 public:
  AnswerWriter(const Job& job, const ServedModel& model, std::int64_t created);

  OrderedJson usage(const Usage& usage) const;
  // The prompt as tokens of the reply, for `echo`.
  ChoicePart echoed_prompt(const std::vector<TokenId>& prompt, const PromptEvent& event) const;
  // vLLM's list: null, or {id: {logprob, rank?, decoded_token}}.
  OrderedJson prompt_logprobs(const std::vector<TokenId>& prompt, const PromptEvent& event) const;

  OrderedJson full_choice(int index, const ChoicePart& part) const;
  OrderedJson full_answer(OrderedJson choices, const Usage& usage) const;

  // Streaming. `choices` may be empty. The usage field is null where usage was asked for.
  OrderedJson chunk(OrderedJson choices) const;
  OrderedJson role_choice(int index) const;  // chat: the delta that opens a choice
  OrderedJson chunk_choice(int index, const ChoicePart& part) const;
  OrderedJson branch_chunk(int index, const BranchNews& news) const;

 private:
  OrderedJson message(const ChoicePart& part) const;
  OrderedJson delta(const ChoicePart& part) const;
  OrderedJson logprobs(const std::vector<CanonicalToken>& tokens) const;
  OrderedJson chat_token(const CanonicalToken& token) const;
  OrderedJson head(const char* object) const;
  void add_extras(OrderedJson& choice, const ChoicePart& part) const;

  const Job& job_;
  const ServedModel& model_;
  std::int64_t created_;
  std::string id_;
};

}  // namespace multiverse
