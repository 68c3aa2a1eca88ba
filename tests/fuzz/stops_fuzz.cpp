// Stop strings in a text that comes in any pieces: cut where a search of the whole text finds the first match.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "multiverse/api/stop_matcher.h"
#include "multiverse/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace multiverse;
  // Flags; the lengths of up to four stop strings; these; the text, cut into pieces by its own bytes.
  if (size < 5) return 0;
  const bool include = data[0] % 2 == 1;
  std::vector<std::string> stops;
  std::size_t at = 5;
  for (std::size_t i = 1; i < 5; ++i) {
    const std::size_t length = std::min<std::size_t>(data[i] % 8, size - at);
    if (length > 0) stops.emplace_back(reinterpret_cast<const char*>(data) + at, length);
    at += length;
  }
  const std::string text(reinterpret_cast<const char*>(data) + at, size - at);

  std::size_t cut = text.size();
  bool found = false;
  for (std::size_t begin = 0; begin < text.size() && !found; ++begin) {
    for (const std::string& stop : stops) {
      if (text.compare(begin, stop.size(), stop) != 0) continue;
      cut = std::min(found ? cut : text.size(), include ? begin + stop.size() : begin);
      found = true;
    }
  }

  StopMatcher matcher(stops, include);
  std::string released;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t length = 1 + static_cast<std::uint8_t>(text[begin]) % 5U;
    released += matcher.append(std::string_view(text).substr(begin, length));
    begin += length;
  }
  released += matcher.finish();
  CHECK(matcher.matched() == found, "a match was ", found ? "missed" : "made up");
  CHECK(released == text.substr(0, cut), "cut at ", released.size(), " instead of ", cut);
  return 0;
}
