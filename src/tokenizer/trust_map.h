// Who wrote which bytes of a text.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "multiverse/tokenizer/span.h"

namespace multiverse::tokenizer {

// The trust of each byte, as runs. Positions are bytes of the text that it belongs to.
class TrustMap {
 public:
  // The next `length` bytes.
  void append(std::size_t length, Trust trust) {
    if (length == 0) return;
    size_ += length;
    highest_ = std::max(highest_, trust);
    if (!runs_.empty() && runs_.back().trust == trust) {
      runs_.back().end = size_;
    } else {
      runs_.push_back({size_, trust});
    }
  }

  // The next bytes as [begin, end) of another text.
  void append_from(const TrustMap& source, std::size_t begin, std::size_t end) {
    for (auto run = source.run_at(begin); begin < end; ++run) {
      append(std::min(run->end, end) - begin, run->trust);
      begin = run->end;
    }
  }

  // The lowest trust in [begin, end), which isn't empty.
  Trust lowest(std::size_t begin, std::size_t end) const {
    auto run = run_at(begin);
    Trust trust = run->trust;
    while (run->end < end) trust = std::min(trust, (++run)->trust);
    return trust;
  }

  // Of the whole text; kNone where it is empty.
  Trust highest() const { return highest_; }

 private:
  struct Run {
    std::size_t end;
    Trust trust;
  };
  std::vector<Run>::const_iterator run_at(std::size_t position) const {
    return std::upper_bound(runs_.begin(), runs_.end(), position,
                            [](std::size_t p, const Run& run) { return p < run.end; });
  }

  std::vector<Run> runs_;
  std::size_t size_ = 0;
  Trust highest_ = Trust::kNone;
};

}  // namespace multiverse::tokenizer
