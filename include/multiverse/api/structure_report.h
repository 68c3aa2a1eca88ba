// The tree of a structured text as JSON: what `inspect --json` prints and POST /inspect answers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/api/served_model.h"
#include "multiverse/dialect/structure.h"
#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse {

// A text as its tokens and their structure.
struct StructuredText {
  StructuredText(std::string_view text, const Tokenizer& tokenizer, const Dialect& dialect);

  std::vector<TokenId> tokens;
  Structure structure;
};

// Where a malformed token stands.
struct MalformedPlace {
  std::int32_t token = 0;             // index in the text
  std::int64_t line = 1, column = 1;  // counted from 1, columns in bytes
  std::int32_t segment = 0;           // index in Structure::segments
  std::int64_t offset = 0;            // code points of the segment's text before it

  std::string text() const;  // "line 3, column 1"
};
// All of them, in text order. Linear.
std::vector<MalformedPlace> malformed_places(const StructuredText& text, const Tokenizer& tokenizer);

// One line. `id` "" is left out. Without `segments` the counts, the tree and the malformed places; with them also what
// each branch wrote between two forks, and at most kMaxListedPlaces places.
std::string structure_report(const std::string& id, const StructuredText& text, const Tokenizer& tokenizer,
                             bool segments);

// POST /inspect: {"text"}, at most kMaxInspectedBytes. Any thread.
Result<std::string> inspect_body(std::string_view request, const ServedModel& model);

inline constexpr std::size_t kMaxInspectedBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMaxListedPlaces = 1000;

}  // namespace multiverse
