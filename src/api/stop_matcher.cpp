#include "multiverse/api/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace multiverse {
namespace {

enum class Fit { kNone, kPartial, kFull };

// How `stop` fits at the start of `text`.
Fit fit(std::string_view text, std::string_view stop) {
  if (text.size() >= stop.size()) return text.substr(0, stop.size()) == stop ? Fit::kFull : Fit::kNone;
  return stop.substr(0, text.size()) == text ? Fit::kPartial : Fit::kNone;
}

}  // namespace

std::string StopMatcher::append(std::string_view text) {
  if (matched_) return "";
  if (stops_.empty()) return std::string(text);
  held_ += text;
  return release(/*at_end=*/false);
}

std::string StopMatcher::finish() {
  return matched_ ? "" : release(/*at_end=*/true);
}

std::string StopMatcher::release(bool at_end) {
  std::size_t safe = held_.size(), matched_bytes = 0;
  for (std::size_t start = 0; start < held_.size() && safe == held_.size(); ++start) {
    const std::string_view rest = std::string_view(held_).substr(start);
    for (const std::string& stop : stops_) {
      const Fit how = fit(rest, stop);
      if (how == Fit::kFull) {
        matched_bytes = matched_ ? std::min(matched_bytes, stop.size()) : stop.size();
        matched_ = true;
        safe = start;
      }
      if (how == Fit::kPartial && !at_end) safe = start;  // a full match here by another stop string still wins
    }
  }
  std::string out = held_.substr(0, safe + (include_ ? matched_bytes : 0));
  held_.erase(0, matched_ ? held_.size() : safe);
  return out;
}

bool any_stop_inside_another(const std::vector<std::string>& stops) {
  for (const std::string& inner : stops) {
    for (const std::string& outer : stops) {
      const std::size_t at = outer.find(inner);
      // A match at the very end of `outer` completes both at once, so nothing more is to come.
      if (at != std::string::npos && at + inner.size() < outer.size()) return true;
    }
  }
  return false;
}

}  // namespace multiverse
