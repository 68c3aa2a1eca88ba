#include "multiverse/scheduler/prefill_pace.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace multiverse {
namespace {

// Aims below the stretch that is allowed: times scatter.
constexpr double kMargin = 0.8;
// Weight of what was measured last.
constexpr double kNew = 0.5;

bool alike(std::int32_t rows, std::int32_t others) {
  return 4 * std::abs(rows - others) <= others;
}

double mixed(double old, double measured) {
  return old > 0.0 ? (1.0 - kNew) * old + kNew * measured : measured;
}

}  // namespace

bool PrefillPace::wants_probe(std::int32_t decoding) const {
  if (quiet_ <= 0.0 || steps_since_probe_ >= kProbeEvery) return true;
  return steps_since_probe_ >= kProbeAtMost && !alike(decoding, quiet_rows_);
}

std::int32_t PrefillPace::budget(std::int32_t decoding) const {
  if (stretch_ <= 1.0 || decoding == 0 || clock_stands_) return most_;
  if (wants_probe(decoding)) return 0;
  // As many as decode, before anything is known of them; never more than twice as many as before: one step that was
  // fast by chance must not let a slow one in.
  const double allowed = kMargin * (stretch_ - 1.0) * quiet_;
  const double affordable = token_cost_ > 0.0 ? allowed / token_cost_ : static_cast<double>(decoding);
  const double grown = 2.0 * std::max(last_, decoding);
  return std::clamp(static_cast<std::int32_t>(std::min({affordable, grown, static_cast<double>(most_)})), 1, most_);
}

void PrefillPace::after_step(std::int32_t decoding, std::int32_t prompt_tokens, Nanoseconds took) {
  clock_stands_ = took.count() <= 0;
  if (clock_stands_ || decoding == 0) return;
  const auto time = static_cast<double>(took.count());
  if (prompt_tokens == 0) {
    quiet_ = alike(decoding, quiet_rows_) ? mixed(quiet_, time) : time;
    quiet_rows_ = decoding;
    steps_since_probe_ = 0;
    return;
  }
  ++steps_since_probe_;
  last_ = prompt_tokens;
  if (quiet_ > 0.0) token_cost_ = mixed(token_cost_, std::max(time - quiet_, 1.0) / prompt_tokens);
}

}  // namespace multiverse
