#include "constrain/regex.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

namespace multiverse {
namespace {

using Piece = SyntaxBuilder::Piece;
using Ranges = std::vector<CodePoints>;

constexpr std::size_t kMaxPatternBytes = 4096;
constexpr int kMaxGroupDepth = 32;
constexpr std::int32_t kMaxCount = 1000;
constexpr std::uint32_t kLastCodePoint = 0x10FFFF;

Ranges sorted(Ranges ranges) {
  std::sort(ranges.begin(), ranges.end());
  Ranges merged;
  for (const CodePoints& range : ranges) {
    if (!merged.empty() && range.first <= merged.back().second + 1) {
      merged.back().second = std::max(merged.back().second, range.second);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

Ranges all_but(const Ranges& ranges) {
  Ranges others;
  std::uint32_t next = 0;
  for (const auto& [low, high] : sorted(ranges)) {
    if (low > next) others.emplace_back(next, low - 1);
    next = high + 1;
  }
  if (next <= kLastCodePoint) others.emplace_back(next, kLastCodePoint);
  return others;
}

// The part of the ranges within [low, high].
Ranges within(const Ranges& ranges, std::uint32_t low, std::uint32_t high) {
  Ranges part;
  for (const auto& [first, last] : ranges) {
    if (std::max(first, low) <= std::min(last, high)) part.emplace_back(std::max(first, low), std::min(last, high));
  }
  return part;
}

// \d, \w and the like; nullopt for another letter.
std::optional<Ranges> named_class(char letter) {
  switch (letter) {
    case 'd':
      return Ranges{{'0', '9'}};
    case 'w':
      return Ranges{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    case 's':
      return Ranges{{'\t', '\r'}, {' ', ' '}};
    case 'D':
    case 'W':
    case 'S':
      return all_but(*named_class(static_cast<char>(letter - 'A' + 'a')));
    default:
      return std::nullopt;
  }
}

class Parser {
 public:
  Parser(SyntaxBuilder& builder, std::string_view pattern, RegexUse use)
      : builder_(builder), text_(pattern), use_(use) {}

  Result<Piece> parse() {
    if (text_.size() > kMaxPatternBytes) {
      fail(concat("has ", text_.size(), " bytes, at most ", kMaxPatternBytes, " are allowed"));
    }
    const Piece whole = alternatives(0);
    if (at_ < text_.size()) fail(concat("has an unmatched ')' at byte ", at_));
    if (error_) return invalid_argument(concat("the regular expression ", *error_));
    return whole;
  }

 private:
  bool more() const { return at_ < text_.size() && !error_ && !builder_.overflow(); }
  bool take(char c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void fail(std::string what) {
    if (!error_) error_ = std::move(what);
  }

  Piece alternatives(int depth) {
    if (depth > kMaxGroupDepth) {
      fail(concat("has groups more than ", kMaxGroupDepth, " deep"));
      return builder_.empty();
    }
    std::vector<Piece> all{sequence(depth)};
    while (take('|')) all.push_back(sequence(depth));
    return builder_.any_of(all);
  }

  Piece sequence(int depth) {
    std::vector<Piece> pieces;
    const bool searches = use_ == RegexUse::kInsideJson && depth == 0;
    const bool anchored = depth == 0 && take('^');
    if (searches && !anchored) pieces.push_back(anything());
    bool ends = false;
    while (more() && text_[at_] != '|' && text_[at_] != ')') {
      if (depth == 0 && text_[at_] == '$' && (at_ + 1 == text_.size() || text_[at_ + 1] == '|')) {
        ++at_;
        ends = true;
        break;
      }
      pieces.push_back(repeated(depth));
    }
    if (searches && !ends) pieces.push_back(anything());
    return builder_.sequence(pieces);
  }

  Piece anything() { return builder_.any_number(character({{0, kLastCodePoint}})); }

  Piece repeated(int depth) {
    const std::size_t begin = at_;
    const Piece piece = atom(depth);
    if (!more()) return piece;
    std::int32_t low = 1, high = 1;
    if (take('*')) {
      low = 0, high = -1;
    } else if (take('+')) {
      high = -1;
    } else if (take('?')) {
      low = 0;
    } else if (text_[at_] == '{') {
      count(low, high);
    } else {
      return piece;
    }
    take('?');  // lazy: the same language
    if (more() && (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '?' || text_[at_] == '{')) {
      fail(concat("repeats a repetition at byte ", begin, "; put the inner one in a group"));
    }
    return builder_.times(builder_.add_rule(piece), low, high);
  }

  void count(std::int32_t& low, std::int32_t& high) {
    const std::size_t begin = at_++;
    const auto number = [this]() -> std::int32_t {
      if (!more() || text_[at_] < '0' || text_[at_] > '9') return -1;
      std::int32_t value = 0;
      while (more() && text_[at_] >= '0' && text_[at_] <= '9' && value <= kMaxCount) {
        value = value * 10 + (text_[at_++] - '0');
      }
      return value;
    };
    low = high = number();
    if (take(',')) high = number();
    if (low < 0 || !take('}')) return fail(concat("has a '{' at byte ", begin, " that opens no count"));
    if (low > kMaxCount || high > kMaxCount) return fail(concat("counts above ", kMaxCount));
    if (high >= 0 && low > high) fail(concat("has a count at byte ", begin, " whose end is below its start"));
  }

  Piece atom(int depth) {
    const char c = text_[at_];
    if (c == '(') return group(depth);
    if (c == '[') return character(char_class());
    if (c == '.') {
      ++at_;
      return character(all_but({{'\n', '\n'}}));
    }
    if (std::string_view("*+?{^$").find(c) != std::string_view::npos) {
      fail(concat("has '", std::string(1, c), "' at byte ", at_, " where this server gives it no meaning"));
      return builder_.empty();
    }
    if (c == '\\') return character(escape(/*in_class=*/false));
    const std::uint32_t code = code_point();
    return character({{code, code}});
  }

  Piece group(int depth) {
    ++at_;
    if (take('?') && !take(':')) {
      fail(
          concat("has a '(?' at byte ", at_ - 2, " that is not '(?:'; look-around, names and flags are not supported"));
      return builder_.empty();
    }
    const Piece inside = alternatives(depth + 1);
    if (!take(')')) fail("has a '(' that is never closed");
    return inside;
  }

  Ranges escape(bool in_class) {
    ++at_;
    if (at_ >= text_.size()) {
      fail("ends with a lone backslash");
      return {};
    }
    const char c = text_[at_];
    if (auto named = named_class(c)) {
      ++at_;
      return *named;
    }
    constexpr std::string_view kLetters = "ntrfv0", kMeanings("\n\t\r\f\v\0", 6);
    if (const auto letter = kLetters.find(c); letter != std::string_view::npos) {
      ++at_;
      const auto code = static_cast<std::uint32_t>(static_cast<unsigned char>(kMeanings[letter]));
      return {{code, code}};
    }
    if (c == 'x' || c == 'u') return hexadecimal(c == 'x' ? 2 : 4);
    const bool is_letter_or_digit = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (is_letter_or_digit && !(in_class && c == 'b')) {
      fail(concat("has '\\", std::string(1, c), "' at byte ", at_ - 1, ", which is not supported"));
      return {};
    }
    if (is_letter_or_digit) {
      ++at_;
      return {{'\b', '\b'}};
    }
    const std::uint32_t code = code_point();
    return {{code, code}};
  }

  Ranges hexadecimal(int digits) {
    ++at_;
    std::uint32_t code = 0;
    for (int i = 0; i < digits; ++i) {
      const auto digit = at_ < text_.size()
                             ? std::string_view("0123456789abcdef")
                                   .find(static_cast<char>(
                                       text_[at_] >= 'A' && text_[at_] <= 'F' ? text_[at_] - 'A' + 'a' : text_[at_]))
                             : std::string_view::npos;
      if (digit == std::string_view::npos) {
        fail(concat("has an unfinished \\x or \\u at byte ", at_));
        return {};
      }
      code = code * 16 + static_cast<std::uint32_t>(digit);
      ++at_;
    }
    return {{code, code}};
  }

  Ranges char_class() {
    const std::size_t begin = at_++;
    const bool negated = take('^');
    Ranges ranges;
    for (bool first = true; more() && (first || text_[at_] != ']'); first = false) {
      const Ranges low = class_member();
      const bool is_range = at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']';
      if (!is_range || error_) {
        ranges.insert(ranges.end(), low.begin(), low.end());
        continue;
      }
      ++at_;
      const Ranges high = class_member();
      if (error_) break;
      const bool single = low.size() == 1 && high.size() == 1 && low[0].first == low[0].second &&
                          high[0].first == high[0].second && low[0].first <= high[0].first;
      if (!single) {
        fail(concat("has a class at byte ", begin, " with a range that is none"));
        break;
      }
      ranges.emplace_back(low[0].first, high[0].first);
    }
    if (!take(']')) fail(concat("has a '[' at byte ", begin, " that is never closed"));
    return negated ? all_but(ranges) : sorted(ranges);
  }

  Ranges class_member() {
    if (text_[at_] == '\\') return escape(/*in_class=*/true);
    const std::uint32_t code = code_point();
    return {{code, code}};
  }

  // The character at the place; the pattern is valid UTF-8.
  std::uint32_t code_point() {
    const auto lead = static_cast<unsigned char>(text_[at_++]);
    if (lead < 0x80) return lead;
    std::size_t more_bytes = 1;
    if (lead >= 0xE0) ++more_bytes;
    if (lead >= 0xF0) ++more_bytes;
    std::uint32_t code = lead & (0x3FU >> more_bytes);
    for (; more_bytes > 0 && at_ < text_.size(); --more_bytes) {
      code = (code << 6U) | (static_cast<unsigned char>(text_[at_++]) & 0x3FU);
    }
    return code;
  }

  // One character of the class, written as the use wants it.
  Piece character(const Ranges& ranges) {
    if (use_ == RegexUse::kWholeText) return builder_.code_points(ranges);
    std::vector<Piece> ways;
    Ranges plain = within(ranges, ' ', '!');
    for (const auto& [low, high] : {CodePoints{'#', '['}, CodePoints{']', kLastCodePoint}}) {
      const Ranges part = within(ranges, low, high);
      plain.insert(plain.end(), part.begin(), part.end());
    }
    if (!plain.empty()) ways.push_back(builder_.code_points(plain));
    constexpr std::array<std::pair<char, std::string_view>, 7> kEscapes{
        {{'"', "\\\""}, {'\\', "\\\\"}, {'\b', "\\b"}, {'\f', "\\f"}, {'\n', "\\n"}, {'\r', "\\r"}, {'\t', "\\t"}}};
    for (const auto& [c, written] : kEscapes) {
      const auto code = static_cast<std::uint32_t>(static_cast<unsigned char>(c));
      if (!within(ranges, code, code).empty()) ways.push_back(builder_.text(written));
    }
    return ways.empty() ? builder_.nothing() : builder_.any_of(ways);
  }

  SyntaxBuilder& builder_;
  const std::string_view text_;
  const RegexUse use_;
  std::size_t at_ = 0;
  std::optional<std::string> error_;
};

}  // namespace

Result<SyntaxBuilder::Piece> add_regex(SyntaxBuilder& builder, std::string_view pattern, RegexUse use) {
  return Parser(builder, pattern, use).parse();
}

}  // namespace multiverse
