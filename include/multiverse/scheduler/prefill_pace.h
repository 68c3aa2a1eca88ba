// How many prompt tokens a step may take beside branches that decode, so that these don't feel the prompt much.
#pragma once

#include <cstdint>

#include "multiverse/base/clock.h"

namespace multiverse {

// Learns from the steps' times. A step without prompts is the measure: one in kProbeEvery steps takes none, and one in
// kProbeAtMost where the number of rows that decode has changed by a quarter. What the others take longer is the prompt
// tokens' cost; the next step's are so many that it will take `stretch` times the measure. Where one token alone costs
// more (a prompt so long that attention to it outweighs all else), it is one token a step.
// One thread; no clock of its own.
class PrefillPace {
 public:
  static constexpr std::int32_t kProbeEvery = 32, kProbeAtMost = 4;

  // `most`: tokens a step, ≥ 1. stretch ≤ 1: no pace, always `most`.
  PrefillPace(std::int32_t most, double stretch) : most_(most), stretch_(stretch) {}

  // For the next step; 0: it is a probe. `decoding`: rows that it will have besides, as far as is known.
  std::int32_t budget(std::int32_t decoding) const;
  // What came of a step. `took` 0: the clock stands still, and there is no pace until it goes.
  void after_step(std::int32_t decoding, std::int32_t prompt_tokens, Nanoseconds took);

 private:
  bool wants_probe(std::int32_t decoding) const;

  const std::int32_t most_;
  const double stretch_;
  double quiet_ = 0.0;           // nanoseconds of a step without prompts; 0: not known
  std::int32_t quiet_rows_ = 0;  // that it had
  double token_cost_ = 0.0;      // nanoseconds of a prompt token; 0: not known
  std::int32_t last_ = 0;        // prompt tokens of the last step that had any
  std::int32_t steps_since_probe_ = 0;
  bool clock_stands_ = false;
};

}  // namespace multiverse
