// Time as the engine sees it, so that tests can hold it.
#pragma once

#include <chrono>

namespace multiverse {

using Nanoseconds = std::chrono::nanoseconds;

// Monotonic time since an arbitrary start. Implementations may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Nanoseconds now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  Nanoseconds now() const override { return std::chrono::steady_clock::now().time_since_epoch(); }
};

}  // namespace multiverse
