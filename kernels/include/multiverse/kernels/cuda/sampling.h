// Drawing tokens from logits on the GPU, by the definition of exec/step.h: the same tokens as the CPU sampler's.
#pragma once

#include "multiverse/kernels/cuda/stream.h"

namespace multiverse::kernels::cuda {

struct TokenCount {
  std::int32_t token = 0;
  std::int32_t count = 0;  // times generated; 0: in the prompt only
};
struct TokenBias {
  std::int32_t token = 0;
  float bias = 0.0F;
};

// One draw. Begins and ends are indexes into SamplingArgs's lists; ids in them are below vocab_size.
struct SampleTask {
  std::int32_t logits_row = 0;
  std::int32_t given = -1;  // ≥ 0: nothing is drawn
  float temperature = 1.0F, top_p = 1.0F, min_p = 0.0F;
  std::int32_t top_k = 0;
  float repetition_penalty = 1.0F, presence_penalty = 0.0F, frequency_penalty = 0.0F;
  std::int32_t top_logprobs = -1, top_first = 0;    // top_logprobs > 0: entries of `top` from top_first on
  std::int32_t bias_begin = 0, bias_end = 0;        // unique ids
  std::int32_t history_begin = 0, history_end = 0;  // unique ids
  std::int32_t banned_begin = 0, banned_end = 0;
  std::int32_t allowed_first = -1;  // index of 32-bit words, one bit a token; -1: all are allowed
  std::uint32_t index = 0;          // RandomKey
  std::uint64_t seed = 0, branch = 0;
};

struct SampleOutcome {
  std::int32_t token = -1;
  float logprob = 0.0F;
  std::int32_t valid = 0;  // 0: the row's logits are not finite
};
struct TokenLogprobOutcome {
  std::int32_t token = 0;
  float logprob = 0.0F;
};

// What a slice of a draw's logits holds. Keys order (logit, lowest id first); 0: none.
inline constexpr int kSampleSlices = 32;
struct SampleSlice {
  unsigned long long greatest = 0, greatest_adjusted = 0;  // of the raw logits; after bias, penalties, masks
  double sum = 0.0;                                        // Σ exp(logit - greatest) of the raw ones
  double best = 0.0;  // of the draw among its tokens that filters surely keep; see exec/step.h
  std::int32_t drawn = 0;
};

// A draw's tokens by their distance from the greatest logit, and those of which filters must still decide.
inline constexpr int kSampleBins = 256, kSampleCandidates = 1024;
struct SampleFilter {
  unsigned long long bins[kSampleBins];
  unsigned long long candidates[kSampleCandidates];
  std::int32_t num_candidates;  // may exceed the list
};

// Which kernels a list of tasks (on the host) needs.
struct SampleNeeds {
  bool draws = false, filters = false;
};
SampleNeeds sample_needs(const SampleTask* tasks, std::int32_t count);

struct SamplingArgs {
  const float* logits = nullptr;    // (logits rows, vocab_size)
  float* work = nullptr;            // (tasks, vocab_size): overwritten
  SampleSlice* slices = nullptr;    // (tasks, kSampleSlices): overwritten
  SampleFilter* filters = nullptr;  // (tasks): overwritten
  const SampleTask* tasks = nullptr;
  const TokenBias* biases = nullptr;
  const TokenCount* history = nullptr;
  const std::int32_t* banned = nullptr;
  const std::uint32_t* allowed = nullptr;
  SampleOutcome* outcomes = nullptr;   // (tasks)
  TokenLogprobOutcome* top = nullptr;  // each task's min(top_logprobs, vocab_size) likeliest, in no order
  std::int32_t num_tasks = 0;
  std::int32_t vocab_size = 0;
  SampleNeeds needs;
};

void sample(const SamplingArgs& args, Stream stream);

}  // namespace multiverse::kernels::cuda
