#include "tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <string>

#include "tokenizer/newer_characters.h"

namespace multiverse::tokenizer {
namespace {

struct Part {
  TextRange range;
  bool is_match = false;
};

// `text` as matches and what lies between them.
std::vector<Part> parts_of(std::string_view text, const SplitStep& step) {
  std::vector<TextRange> matches;
  step.pattern->find_all(text, matches);
  std::vector<Part> parts;
  parts.reserve(matches.size());
  std::size_t end = 0;
  for (const TextRange match : matches) {
    if (match.begin > end) parts.push_back({{end, match.begin}, step.invert});
    parts.push_back({match, !step.invert});
    end = match.end;
  }
  if (end < text.size()) parts.push_back({{end, text.size()}, step.invert});
  return parts;
}

// Joins each part for which `joins(part, part before)` holds to the piece before it, in the order of iteration.
template <class Iterator, class Joins>
std::vector<TextRange> joined(Iterator begin, Iterator end, Joins joins) {
  std::vector<TextRange> pieces;
  bool previous_is_match = false;
  for (Iterator part = begin; part != end; ++part) {
    if (!pieces.empty() && joins(part->is_match, previous_is_match)) {
      pieces.back() = {std::min(pieces.back().begin, part->range.begin), std::max(pieces.back().end, part->range.end)};
    } else {
      pieces.push_back(part->range);
    }
    previous_is_match = part->is_match;
  }
  return pieces;
}

std::vector<TextRange> pieces_of(const std::vector<Part>& parts, SplitBehavior behavior) {
  const auto match_after_none = [](bool is_match, bool previous) { return is_match && !previous; };
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return joined(parts.begin(), parts.end(), [](bool, bool) { return false; });
    case SplitBehavior::kContiguous:
      return joined(parts.begin(), parts.end(), [](bool is_match, bool previous) { return is_match == previous; });
    case SplitBehavior::kMergedWithPrevious:
      return joined(parts.begin(), parts.end(), match_after_none);
    case SplitBehavior::kMergedWithNext: {
      std::vector<TextRange> pieces = joined(parts.rbegin(), parts.rend(), match_after_none);
      std::reverse(pieces.begin(), pieces.end());
      return pieces;
    }
    case SplitBehavior::kRemoved:
      break;
  }
  std::vector<TextRange> pieces;
  for (const Part& part : parts)
    if (!part.is_match) pieces.push_back(part.range);
  return pieces;
}

std::vector<TextRange> split(std::string_view text, const SplitStep& step) {
  return pieces_of(parts_of(text, step), step.behavior);
}

// What ByteLevel does to `piece`, which patterns see as `seen`.
void byte_level(const PreTokenizer& options, std::string_view piece, std::string_view seen,
                const std::function<void(std::string_view)>& take) {
  std::string prefixed;
  std::string seen_prefixed;
  if (options.add_prefix_space && piece.front() != ' ') {
    piece = prefixed.assign(1, ' ').append(piece);
    seen = seen_prefixed.assign(1, ' ').append(seen);
  }
  if (options.byte_level_pattern == nullptr) return take(piece);
  for (const TextRange part : split(seen, {options.byte_level_pattern, SplitBehavior::kIsolated, false}))
    take(piece.substr(part.begin, part.end - part.begin));
}

}  // namespace

void PreTokenizer::run(std::string_view text, const std::function<void(std::string_view)>& take) const {
  std::string replaced;
  std::string_view seen = text;  // what the patterns see, byte for byte as long
  if (may_have_newer_characters(text)) seen = replaced = with_older_characters(text);

  std::vector<TextRange> pieces = {{0, text.size()}};
  for (const SplitStep& step : splits) {
    std::vector<TextRange> finer;
    for (const TextRange piece : pieces) {
      for (const TextRange part : split(seen.substr(piece.begin, piece.end - piece.begin), step))
        finer.push_back({piece.begin + part.begin, piece.begin + part.end});
    }
    pieces = std::move(finer);
  }
  for (const TextRange piece : pieces) {
    const std::size_t size = piece.end - piece.begin;
    if (size > 0) byte_level(*this, text.substr(piece.begin, size), seen.substr(piece.begin, size), take);
  }
}

}  // namespace multiverse::tokenizer
