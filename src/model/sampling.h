// Drawing tokens from logits, and log-probabilities. What each step means is said in exec/step.h.
#pragma once

#include <cstdint>
#include <vector>

#include "multiverse/exec/step.h"
#include "multiverse/kernels/elementwise.h"

namespace multiverse {

// Raw logits of one row with max and Σ exp(logit - max).
struct RowLogits {
  const float* logits = nullptr;  // (vocab_size)
  std::int32_t vocab_size = 0;
  kernels::SoftmaxSum softmax;

  // No NaN, no infinity that matters: sampling needs it.
  bool valid() const;
};

// Draws tokens; keeps its working memory (12 bytes a token of the vocabulary) between calls. One thread.
class Sampler {
 public:
  // `row` must be valid(). Masks that leave no token are dropped, first `banned`, then `allowed`: a request whose
  // constraints contradict each other goes on unconstrained rather than fail the step that others share.
  void sample(const RowLogits& row, const SampleRequest& request, SampleResult& result);

 private:
  struct Candidate {
    double logit = 0.0;  // divided by the temperature, relative to the greatest: ≤ 0
    TokenId token = 0;
  };

  TokenId draw(const RowLogits& row, const SampleRequest& request);
  void penalize(const SampleRequest& request);
  void mask(const SampleRequest& request);
  // Candidates that top-k, top-p and min-p leave, and those without a chance in the draw left out.
  void filter(const SamplingParams& params, float greatest);
  void keep_nucleus(const SamplingParams& params, float greatest);

  std::vector<float> logits_;
  std::vector<std::int32_t> counts_;  // of generated tokens; zero between calls
  std::vector<TokenLogprob> best_;
  std::vector<Candidate> candidates_;
};

// The `count` greatest of x (size), greatest first, the lower id first among equals.
void greatest(const float* x, std::int32_t size, std::int32_t count, std::vector<TokenLogprob>& out);

}  // namespace multiverse
