// A clock that tests move.
#pragma once

#include "multiverse/base/clock.h"

namespace multiverse::testing {

class ManualClock final : public Clock {
 public:
  Nanoseconds now() const override { return time; }
  Nanoseconds time{0};
};

}  // namespace multiverse::testing
