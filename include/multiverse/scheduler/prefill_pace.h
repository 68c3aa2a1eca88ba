// How many prompt tokens a step may take beside branches that decode, so that these don't feel the prompt much.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "multiverse/base/clock.h"

namespace multiverse {

// What a step would hold if nothing limited it.
struct PrefillLoad {
  std::int32_t decoding_rows = 0;
  std::int32_t decoding = 0, prefilling = 0;  // requests
};

// Learns from the steps' times. A step without prompts is the measure: one in kProbeEvery steps takes none, and one in
// kProbeAtMost while fewer than kProbes are known for about as many rows that decode. What the others take longer is
// the prompt tokens' cost; the next step's are so many that it will take `stretch` times the measure, or more where
// more requests have prompts than decode: time is shared by requests, and few must not keep many out. Where one token
// alone costs more (a prompt so long that attention to it outweighs all else), it is one token a step. So at most one
// step in kProbeAtMost + 1 computes none of a prompt, whatever runs beside it. Times scatter, by other processes most
// of all, and a wrong estimate is felt by all streams: so the measure is the median of the probes (for fewer rows than
// one had its time in proportion, which is too little rather than too much), the cost is of all tokens of the last
// steps together, no step counts for more than kClip times what was expected, and chunks grow by a quarter a step. One
// thread; no clock of its own.
class PrefillPace {
 public:
  static constexpr std::int32_t kProbeEvery = 32, kProbeAtMost = 4;
  static constexpr std::size_t kProbes = 9;
  static constexpr double kClip = 3.0;

  // `most`: tokens a step, ≥ 1. stretch ≤ 1: no pace, always `most`.
  PrefillPace(std::int32_t most, double stretch) : most_(most), stretch_(stretch) {}

  // For the next step; 0: it is a probe.
  std::int32_t budget(const PrefillLoad& load) const;
  // What came of a step. `took` 0: the clock stands still, and there is no pace until it goes.
  void after_step(std::int32_t decoding_rows, std::int32_t prompt_tokens, Nanoseconds took);
  // What so many prompt tokens cost, in steps of so many rows that decode; nullopt: not known yet.
  std::optional<double> cost_in_steps(std::int64_t prompt_tokens, std::int32_t decoding_rows) const;

 private:
  bool wants_probe(std::int32_t decoding_rows) const;
  double measure(std::int32_t decoding_rows) const;  // nanoseconds of a step without prompts
  double token_cost() const;                         // nanoseconds; 0: not known

  const std::int32_t most_;
  const double stretch_;
  struct Probe {
    std::int32_t rows = 0;
    double time = 0.0;  // nanoseconds
  };
  std::deque<Probe> probes_;            // the last kProbes
  double excess_ = 0.0, tokens_ = 0.0;  // nanoseconds above the measure and prompt tokens, of the last steps: each
                                        // weighs less than the one after it
  std::int32_t last_ = 0;               // prompt tokens of the last step that had any
  std::int32_t steps_since_probe_ = 0;
  bool clock_stands_ = false;
};

}  // namespace multiverse
