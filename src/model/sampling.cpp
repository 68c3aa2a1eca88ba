#include "model/sampling.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "multiverse/kernels/philox.h"

namespace multiverse {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// The greatest and the least -log(-log u) over the uniforms of philox_uniform, 2⁻³³ and 1 - 2⁻³³.
constexpr double kMaxGumbel = 22.88;
constexpr double kMinGumbel = -3.14;

bool before(const TokenLogprob& a, const TokenLogprob& b) {
  return a.logprob > b.logprob || (a.logprob == b.logprob && a.token < b.token);
}

// A number that later arithmetic cannot turn into NaN, whatever penalties and biases made of it.
float bounded(float x) {
  if (!(x >= -FLT_MAX)) return -FLT_MAX;
  return std::min(x, FLT_MAX);
}

TokenId argmax(const std::vector<float>& x) {
  return static_cast<TokenId>(std::max_element(x.begin(), x.end()) - x.begin());
}

}  // namespace

bool RowLogits::valid() const {
  return std::isfinite(softmax.max) && std::isfinite(softmax.sum) && softmax.sum > 0.0;
}

void greatest(const float* x, std::int32_t size, std::int32_t count, std::vector<TokenLogprob>& out) {
  out.clear();
  const auto most = static_cast<std::size_t>(std::clamp(count, 0, size));
  if (most == 0) return;
  // A heap with the worst of the best on top: after the start, most tokens cost one comparison.
  for (TokenId token = 0; token < size; ++token) {
    const TokenLogprob entry{token, x[token]};
    if (out.size() == most) {
      if (entry.logprob <= out.front().logprob) continue;  // an equal one has a higher id
      std::pop_heap(out.begin(), out.end(), before);
      out.pop_back();
    }
    out.push_back(entry);
    std::push_heap(out.begin(), out.end(), before);
  }
  std::sort_heap(out.begin(), out.end(), before);
}

void Sampler::sample(const RowLogits& row, const SampleRequest& request, SampleResult& result) {
  result.token = request.given >= 0 ? request.given : draw(row, request);
  result.logprob = 0.0F;
  result.top.clear();
  if (request.given < 0 && request.top_logprobs < 0) return;
  const double normalizer = static_cast<double>(row.softmax.max) + std::log(row.softmax.sum);
  const auto logprob = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - normalizer); };
  result.logprob = logprob(row.logits[result.token]);
  if (request.top_logprobs <= 0) return;
  greatest(row.logits, row.vocab_size, request.top_logprobs, result.top);
  for (TokenLogprob& entry : result.top) entry.logprob = logprob(entry.logprob);
}

TokenId Sampler::draw(const RowLogits& row, const SampleRequest& request) {
  const SamplingParams& params = *request.params;
  logits_.assign(row.logits, row.logits + row.vocab_size);
  for (const auto& [token, bias] : params.logit_bias) {
    if (token >= 0 && token < row.vocab_size) logits_[static_cast<std::size_t>(token)] += bias;
  }
  if (params.uses_history()) penalize(request);
  if (params.uses_history() || !params.logit_bias.empty()) {
    std::transform(logits_.begin(), logits_.end(), logits_.begin(), bounded);
  }
  mask(request);

  const TokenId likeliest = argmax(logits_);
  if (params.temperature <= 0.0F) return likeliest;
  filter(params, logits_[static_cast<std::size_t>(likeliest)]);
  double best = -std::numeric_limits<double>::infinity();
  TokenId drawn = likeliest;
  for (const Candidate& candidate : candidates_) {
    const double uniform = kernels::philox_uniform(request.key.seed, request.key.branch, request.key.index,
                                                   static_cast<std::uint32_t>(candidate.token));
    const double value = candidate.logit - std::log(-std::log(uniform));
    if (value > best || (value == best && candidate.token < drawn)) {
      best = value;
      drawn = candidate.token;
    }
  }
  return drawn;
}

void Sampler::penalize(const SampleRequest& request) {
  const SamplingParams& params = *request.params;
  counts_.resize(logits_.size(), 0);
  // -1: in the prompt only; n > 0: generated n times. Each token's logit is changed once, at its first sight.
  const auto each = [&](const std::vector<std::span<const TokenId>>& history, const auto& visit) {
    for (const std::span<const TokenId> tokens : history) {
      for (const TokenId token : tokens) {
        if (token >= 0 && static_cast<std::size_t>(token) < logits_.size()) visit(static_cast<std::size_t>(token));
      }
    }
  };
  each(request.generated_history, [&](std::size_t token) { ++counts_[token]; });
  each(request.prompt_history, [&](std::size_t token) {
    if (counts_[token] == 0) counts_[token] = -1;
  });
  const auto apply = [&](std::size_t token) {
    const std::int32_t count = counts_[token];
    if (count == 0) return;  // done
    counts_[token] = 0;
    float& logit = logits_[token];
    logit = logit > 0.0F ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (count > 0) logit -= params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
  };
  each(request.generated_history, apply);
  each(request.prompt_history, apply);
}

void Sampler::mask(const SampleRequest& request) {
  const auto size = static_cast<std::int32_t>(logits_.size());
  const auto is_allowed = [&](TokenId token) {
    const auto word = static_cast<std::size_t>(token) / 64;
    return word < request.allowed.size() && ((request.allowed[word] >> (token % 64)) & 1U) != 0;
  };
  const auto is_banned = [&](TokenId token) {
    return std::find(request.banned.begin(), request.banned.end(), token) != request.banned.end();
  };
  bool any_left = request.allowed.empty() && request.banned.empty();
  bool any_allowed = request.allowed.empty();
  for (TokenId token = 0; token < size && !any_left && !request.allowed.empty(); ++token) {
    if (!is_allowed(token)) continue;
    any_allowed = true;
    any_left = !is_banned(token);
  }
  for (TokenId token = 0; token < size && !any_left && request.allowed.empty(); ++token) any_left = !is_banned(token);
  if (any_left) {
    for (const TokenId token : request.banned) {
      if (token >= 0 && token < size) logits_[static_cast<std::size_t>(token)] = kMasked;
    }
  }
  if (!any_allowed || request.allowed.empty()) return;
  for (TokenId token = 0; token < size; ++token) {
    if (!is_allowed(token)) logits_[static_cast<std::size_t>(token)] = kMasked;
  }
}

void Sampler::filter(const SamplingParams& params, float greatest_logit) {
  candidates_.clear();
  const auto size = static_cast<std::int32_t>(logits_.size());
  // Tokens so far below the greatest that even the luckiest draw loses to its unluckiest.
  double floor = kMinGumbel - kMaxGumbel;
  if (params.min_p > 0.0F) floor = std::max(floor, std::log(static_cast<double>(params.min_p)));
  if ((params.top_k > 0 && params.top_k < size) || params.top_p < 1.0F) {
    keep_nucleus(params, greatest_logit);
    std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.logit < floor; });
    return;
  }
  const double temperature = static_cast<double>(params.temperature);
  for (TokenId token = 0; token < size; ++token) {
    const double logit =
        (static_cast<double>(logits_[static_cast<std::size_t>(token)]) - static_cast<double>(greatest_logit)) /
        temperature;
    if (logit >= floor) candidates_.push_back({logit, token});
  }
}

// Top-k, then top-p: the fewest likeliest tokens whose probabilities reach top_p of what top-k left.
void Sampler::keep_nucleus(const SamplingParams& params, float greatest_logit) {
  const auto size = static_cast<std::int32_t>(logits_.size());
  const double temperature = static_cast<double>(params.temperature);
  const auto scaled = [&](float logit) {
    return (static_cast<double>(logit) - static_cast<double>(greatest_logit)) / temperature;
  };
  const bool has_top_k = params.top_k > 0 && params.top_k < size;
  double total = 0.0;  // over what top-k leaves, where that is all
  if (!has_top_k) {
    for (const float logit : logits_) total += std::exp(scaled(logit));
  }
  // Without top-k the nucleus is mostly small: look at few tokens first.
  for (std::int32_t count = has_top_k ? params.top_k : std::min(size, 128);; count = std::min(size, count * 16)) {
    greatest(logits_.data(), size, count, best_);
    candidates_.clear();
    if (has_top_k) {
      total = 0.0;
      for (const TokenLogprob& entry : best_) total += std::exp(scaled(entry.logprob));
    }
    const double wanted = static_cast<double>(params.top_p) * total;
    double sum = 0.0;
    for (const TokenLogprob& entry : best_) {
      if (!candidates_.empty() && params.top_p < 1.0F && sum >= wanted) return;
      const double logit = scaled(entry.logprob);
      if (logit == -std::numeric_limits<double>::infinity()) return;
      candidates_.push_back({logit, entry.token});
      sum += std::exp(logit);
    }
    if (has_top_k || count == size || (params.top_p < 1.0F && sum >= wanted)) return;
  }
}

}  // namespace multiverse
