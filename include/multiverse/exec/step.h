// One forward pass, as data: what the scheduler asks of an executor, and what it gets back. No tensor types.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace multiverse {

using TokenId = std::int32_t;
using PageId = std::int32_t;

// Tokens whose keys and values (of all layers) one page holds.
inline constexpr int kPageTokens = 16;

// Attention may be cut into chunks at multiples of this many tokens from an item's start, so a plan splits a run of
// pages into items only there: a row's result then depends on its own context alone.
inline constexpr int kSplitTokens = 256;

// One token to compute. Its key and value are written to `page` at `offset` in [0, kPageTokens) before any row of the
// step attends, so rows of one step may see each other.
struct Row {
  TokenId token = 0;
  std::int32_t position = 0;  // for the rotary embedding
  PageId page = 0;
  std::int32_t offset = 0;
};

// Tokens [0, num_tokens) of the run of pages StepPlan::pages[first_page …], seen by the rows [row_begin, row_end).
// The run starts at a page's first slot; its last page may be partly filled. `causal`: the rows are the run's own last
// tokens, and row r sees the first num_tokens - (row_end - 1 - r). A row's items together are all that it sees, itself
// included; no token is in two of them. Items stand in context order: a row sees its items' tokens in this order.
struct AttentionItem {
  std::int32_t first_page = 0;  // index into StepPlan::pages
  std::int32_t num_tokens = 0;
  std::int32_t row_begin = 0;
  std::int32_t row_end = 0;
  bool causal = false;
};

// How a token is drawn. Neutral values switch a filter off.
struct SamplingParams {
  float temperature = 1.0F;  // 0 = greedy (argmax, the lowest id among equals)
  std::int32_t top_k = 0;    // 0 = off
  float top_p = 1.0F;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;  // divides positive logits, multiplies negative ones, of tokens in the history
  float presence_penalty = 0.0F;    // subtracted once from tokens that were generated
  float frequency_penalty = 0.0F;   // subtracted for each time a token was generated
  std::vector<std::pair<TokenId, float>> logit_bias;  // added to the logits; ids unique

  bool uses_history() const {
    return repetition_penalty != 1.0F || presence_penalty != 0.0F || frequency_penalty != 0.0F;
  }
};

// Names the random numbers of one draw; equal keys give equal numbers on every executor. The 128-bit Philox counter
// is (branch, index, token id), the key the seed: token i gets the uniform u_i and the draw is
// argmax(logit_i / temperature - log(-log u_i)) over the tokens that the filters leave.
struct RandomKey {
  std::uint64_t seed = 0;    // of the request and sample
  std::uint64_t branch = 0;  // hash of the branch's address
  std::uint32_t index = 0;   // of the token in its branch
};

// Draws one token from the logits of `row`. Pointers and spans stay valid until the step's result is applied.
// Order: logit bias, penalties, masks, temperature, top-k, top-p, min-p, draw. Log-probabilities are of the model's own
// distribution (log-softmax of the raw logits), before all of that.
struct SampleRequest {
  std::int32_t row = 0;
  const SamplingParams* params = nullptr;
  RandomKey key;
  std::span<const std::uint64_t> allowed;  // one bit a token; empty = all
  std::span<const TokenId> banned;         // never drawn (control tokens out of place, end-of-text before min_tokens)
  TokenId given = -1;                      // ≥ 0: nothing is drawn, this token's log-probability is wanted
  std::int32_t top_logprobs = -1;          // -1: none; 0: the token's own; k: the k likeliest too
  std::vector<std::span<const TokenId>> prompt_history;     // for repetition_penalty; filled if params->uses_history()
  std::vector<std::span<const TokenId>> generated_history;  // for all penalties
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0.0F;
};

struct SampleResult {
  TokenId token = -1;
  float logprob = 0.0F;           // 0 where not wanted
  std::vector<TokenLogprob> top;  // likeliest first
};

// Rows stand depth-first over each request's tree, so that a segment's readers are neighbours in decode.
struct StepPlan {
  std::vector<Row> rows;
  std::vector<PageId> pages;  // page lists of all items, one after another
  std::vector<AttentionItem> items;
  std::vector<SampleRequest> samples;

  void clear() {
    rows.clear();
    pages.clear();
    items.clear();
    samples.clear();
  }
};

struct StepResult {
  std::vector<SampleResult> samples;  // one for each StepPlan::samples, in order
  double device_seconds = 0.0;        // that an accelerator worked on it; 0 where the host itself computes
};

}  // namespace multiverse
