#include "model/cuda/sample_plan.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <map>
#include <numeric>

namespace multiverse {
namespace {

bool in(TokenId token, std::int32_t vocab_size) {
  return token >= 0 && token < vocab_size;
}

// The mask cut to the vocabulary, in words of 32 bits.
std::vector<std::uint32_t> mask_words(std::span<const std::uint64_t> allowed, std::int32_t vocab_size) {
  const auto size = static_cast<std::size_t>(vocab_size);
  std::vector<std::uint32_t> words((size + 31) / 32, 0);
  for (std::size_t i = 0; i < words.size() && i / 2 < allowed.size(); ++i) {
    words[i] = static_cast<std::uint32_t>(allowed[i / 2] >> (i % 2 * 32));
  }
  if (size % 32 != 0) words.back() &= (std::uint32_t{1} << (size % 32)) - 1;
  return words;
}

void add_masks(const SampleRequest& request, std::int32_t vocab_size, kernels::cuda::SampleTask& task,
               SamplePlan& out) {
  const auto first = static_cast<std::ptrdiff_t>(out.banned.size());
  std::copy_if(request.banned.begin(), request.banned.end(), std::back_inserter(out.banned),
               [&](TokenId token) { return in(token, vocab_size); });
  std::sort(out.banned.begin() + first, out.banned.end());
  out.banned.erase(std::unique(out.banned.begin() + first, out.banned.end()), out.banned.end());
  std::int64_t allowed = vocab_size, banned_of_allowed = static_cast<std::int64_t>(out.banned.size()) - first;
  std::vector<std::uint32_t> words;
  if (!request.allowed.empty()) {
    words = mask_words(request.allowed, vocab_size);
    allowed = 0;
    for (const std::uint32_t word : words) allowed += std::popcount(word);
    banned_of_allowed = std::count_if(out.banned.begin() + first, out.banned.end(), [&](TokenId token) {
      return (words[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1U) != 0;
    });
  }
  if (banned_of_allowed >= allowed) out.banned.resize(static_cast<std::size_t>(first));  // nothing would be left
  task.banned_begin = static_cast<std::int32_t>(first);
  task.banned_end = static_cast<std::int32_t>(out.banned.size());
  if (words.empty() || allowed == 0) return;
  task.allowed_first = static_cast<std::int32_t>(out.allowed.size());
  out.allowed.insert(out.allowed.end(), words.begin(), words.end());
}

void add_history(const SampleRequest& request, std::int32_t vocab_size, kernels::cuda::SampleTask& task,
                 SamplePlan& out) {
  task.history_begin = task.history_end = static_cast<std::int32_t>(out.history.size());
  if (!request.params->uses_history()) return;
  std::map<TokenId, std::int32_t> counts;
  for (const auto& tokens : request.generated_history) {
    for (const TokenId token : tokens) {
      if (in(token, vocab_size)) ++counts[token];
    }
  }
  for (const auto& tokens : request.prompt_history) {
    for (const TokenId token : tokens) {
      if (in(token, vocab_size)) counts.try_emplace(token, 0);
    }
  }
  for (const auto& [token, count] : counts) out.history.push_back({token, count});
  task.history_end = static_cast<std::int32_t>(out.history.size());
}

kernels::cuda::SampleTask task_of(const SampleRequest& request, std::int32_t vocab_size, SamplePlan& out) {
  kernels::cuda::SampleTask task;
  task.given = request.given;
  task.top_logprobs = std::min(request.top_logprobs, vocab_size);
  task.top_first = out.num_top;
  out.num_top += std::max(0, task.top_logprobs);
  if (request.given >= 0) return task;
  const SamplingParams& params = *request.params;
  task.temperature = params.temperature;
  task.top_k = params.top_k;
  task.top_p = params.top_p;
  task.min_p = params.min_p;
  task.repetition_penalty = params.repetition_penalty;
  task.presence_penalty = params.presence_penalty;
  task.frequency_penalty = params.frequency_penalty;
  task.seed = request.key.seed;
  task.branch = request.key.branch;
  task.index = request.key.index;
  task.bias_begin = static_cast<std::int32_t>(out.biases.size());
  for (const auto& [token, bias] : params.logit_bias) {
    if (in(token, vocab_size)) out.biases.push_back({token, bias});
  }
  task.bias_end = static_cast<std::int32_t>(out.biases.size());
  add_history(request, vocab_size, task, out);
  add_masks(request, vocab_size, task, out);
  return task;
}

}  // namespace

SamplePlan plan_samples(const StepPlan& plan, std::int32_t vocab_size) {
  SamplePlan out;
  out.order.resize(plan.samples.size());
  out.tasks.reserve(plan.samples.size());
  out.logit_rows.reserve(plan.samples.size());
  std::iota(out.order.begin(), out.order.end(), 0);
  const auto sample = [&](std::int32_t index) -> const SampleRequest& {
    return plan.samples[static_cast<std::size_t>(index)];
  };
  std::stable_sort(out.order.begin(), out.order.end(),
                   [&](std::int32_t a, std::int32_t b) { return sample(a).row < sample(b).row; });
  for (const std::int32_t index : out.order) {
    const SampleRequest& request = sample(index);
    if (out.logit_rows.empty() || out.logit_rows.back() != request.row) out.logit_rows.push_back(request.row);
    out.tasks.push_back(task_of(request, vocab_size, out));
    out.tasks.back().logits_row = static_cast<std::int32_t>(out.logit_rows.size()) - 1;
  }
  return out;
}

}  // namespace multiverse
