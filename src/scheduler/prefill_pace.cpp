#include "multiverse/scheduler/prefill_pace.h"

#include <algorithm>
#include <array>
#include <cstdlib>

namespace multiverse {
namespace {

// Aims below the stretch that is allowed: times scatter.
constexpr double kMargin = 0.8;
// A step's weight against that of the step after it, in what is learnt of the tokens' cost.
constexpr double kOlder = 15.0 / 16.0;
// A chunk against the one before it, at most.
constexpr double kGrowth = 1.25;

bool alike(std::int32_t rows, std::int32_t others) {
  return 4 * std::abs(rows - others) <= others;
}

}  // namespace

bool PrefillPace::wants_probe(std::int32_t decoding_rows) const {
  if (probes_.empty() || steps_since_probe_ >= kProbeEvery) return true;
  return steps_since_probe_ >= kProbeAtMost && (probes_.size() < kProbes || !alike(decoding_rows, probes_.back().rows));
}

double PrefillPace::measure(std::int32_t decoding_rows) const {
  std::array<double, kProbes> times{};
  const auto end = std::transform(probes_.begin(), probes_.end(), times.begin(), [&](const Probe& probe) {
    return probe.time * std::min(1.0, static_cast<double>(decoding_rows) / probe.rows);
  });
  const auto middle = times.begin() + (end - times.begin()) / 2;
  std::nth_element(times.begin(), middle, end);
  return *middle;
}

std::optional<double> PrefillPace::cost_in_steps(std::int64_t prompt_tokens, std::int32_t decoding_rows) const {
  if (probes_.empty() || tokens_ <= 0.0 || decoding_rows == 0) return std::nullopt;
  return static_cast<double>(prompt_tokens) * token_cost() / measure(decoding_rows);
}

double PrefillPace::token_cost() const {
  return tokens_ > 0.0 ? std::max(excess_, 1.0) / tokens_ : 0.0;
}

std::int32_t PrefillPace::budget(const PrefillLoad& load) const {
  if (stretch_ <= 1.0 || load.decoding_rows == 0 || clock_stands_) return most_;
  if (wants_probe(load.decoding_rows)) return 0;
  const double crowd = static_cast<double>(load.prefilling) / static_cast<double>(std::max(load.decoding, 1));
  const double allowed = kMargin * std::max(stretch_ - 1.0, crowd) * measure(load.decoding_rows);
  // As many as decode, before anything is known of them.
  const double cost = token_cost();
  const double affordable = cost > 0.0 ? std::min(allowed / cost, kGrowth * last_ + 1.0) : load.decoding_rows;
  return std::clamp(static_cast<std::int32_t>(std::min(affordable, static_cast<double>(most_))), 1, most_);
}

void PrefillPace::after_step(std::int32_t decoding_rows, std::int32_t prompt_tokens, Nanoseconds took) {
  clock_stands_ = took.count() <= 0;
  if (clock_stands_ || decoding_rows == 0) return;
  const auto time = static_cast<double>(took.count());
  if (prompt_tokens == 0) {
    probes_.push_back({decoding_rows, time});
    if (probes_.size() > kProbes) probes_.pop_front();
    steps_since_probe_ = 0;
    return;
  }
  ++steps_since_probe_;
  last_ = prompt_tokens;
  if (probes_.empty()) return;
  const double quiet = measure(decoding_rows);
  double excess = time - quiet;
  if (const double expected = token_cost() * prompt_tokens; expected > 0.0) {
    excess = std::min(excess, kClip * std::max(expected, quiet));
  }
  excess_ = kOlder * excess_ + excess;
  tokens_ = kOlder * tokens_ + prompt_tokens;
}

}  // namespace multiverse
