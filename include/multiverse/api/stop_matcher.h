// Stop strings in a text that comes piece by piece.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace multiverse {

// Releases the text before the first match of any stop string (or up to its end) and holds back what may be the start
// of one. The first match is the one that starts first; how the text is cut into pieces makes no difference. Holds back
// less than the longest stop string. Time per byte is bounded by the stop strings' total length.
class StopMatcher {
 public:
  StopMatcher() = default;  // no stop strings: releases everything at once
  // `stops`: none empty. `include`: the match itself is released too; of several that start at the same place the
  // shortest.
  explicit StopMatcher(std::vector<std::string> stops, bool include = false)
      : stops_(std::move(stops)), include_(include) {}

  // The text that became certain to stand before the first match. Nothing after a match.
  std::string append(std::string_view text);
  // The end of the text: what was held back, up to a match.
  std::string finish();

  bool matched() const { return matched_; }

 private:
  std::string release(bool at_end);

  std::vector<std::string> stops_;
  bool include_ = false;
  std::string held_;
  bool matched_ = false;
};

// Whether one of the stop strings stands inside another with more to follow. Then a match found within a part of the
// text does not yet say where the first match starts: a longer one may have started before that part.
bool any_stop_inside_another(const std::vector<std::string>& stops);

}  // namespace multiverse
