#include "tokenizer/pattern_syntax.h"

#include <array>
#include <cctype>
#include <utility>

#include "tokenizer/failure.h"

namespace multiverse::tokenizer {
namespace {

// Oniguruma's \w, as parts of a class.
constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_letter(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0 && static_cast<unsigned char>(c) < 0x80;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Result<std::string> run() {
    while (at_ < in_.size() && refused_.empty()) in_class_ ? class_item() : item();
    if (!refused_.empty()) {
      return unsupported(concat("the pattern's ", refused_, " is not supported, in ", in_));
    }
    return std::move(out_);
  }

 private:
  bool starts(std::string_view prefix) const { return in_.substr(at_, prefix.size()) == prefix; }
  char peek(std::size_t ahead) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

  void take(std::size_t count) {
    out_ += in_.substr(at_, count);
    at_ += count;
  }
  void put(std::size_t count, std::string_view replacement) {
    out_ += replacement;
    at_ += count;
  }
  void refuse(std::string_view what) { refused_ = what; }

  void item() {
    const char c = in_[at_];
    const char previous = std::exchange(previous_literal_, '\0');
    switch (c) {
      case '\\':
        return escape();
      case '(':
        return group();
      case '{':
        return counted_repeat();
      case '^':
        return refuse("line anchor ^");
      case '$':  // Ruby's is the end of a line
        return put(1, "(?=\\n|\\z)");
      case '[':
        if (peek(1) == ']' || starts("[^]")) return refuse("empty class []");
        in_class_ = true;
        return take(peek(1) == '^' ? 2 : 1);
      default:
        literal(c, previous);
    }
  }

  // Oniguruma without case matches some pairs of letters with one ligature or ß; PCRE2 does not.
  void literal(char c, char previous) {
    const char lower = static_cast<char>(is_letter(c) ? c | 0x20 : c);
    if (caseless_) {
      if (static_cast<unsigned char>(c) >= 0x80) return refuse("letter beyond ASCII in a pattern with (?i)");
      for (const std::string_view pair : {"ss", "ff", "fi", "fl", "st"})
        if (previous == pair[0] && lower == pair[1]) return refuse(concat("\"", pair, "\" in a pattern with (?i)"));
    }
    previous_literal_ = lower;
    take(1);
  }

  void group() {
    static constexpr std::array<std::string_view, 8> kGroups = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"};
    if (peek(1) != '?') {
      if (peek(1) == '*') return refuse("(*");
      return take(1);
    }
    for (const std::string_view known : kGroups) {
      if (!starts(known)) continue;
      caseless_ = caseless_ || known[2] == 'i';
      return take(known.size());
    }
    refuse(concat("group ", in_.substr(at_, 4)));
  }

  void counted_repeat() {
    std::size_t end = at_ + 1;
    while (end < in_.size() && (is_digit(in_[end]) || in_[end] == ',')) ++end;
    if (end == at_ + 1 || end == in_.size() || in_[end] != '}') return refuse("unescaped {");
    const char after = end + 1 < in_.size() ? in_[end + 1] : '\0';
    if (after == '+' || after == '?' || peek(1) == ',')
      return refuse(concat("repeat ", in_.substr(at_, end + 2 - at_)));
    take(end + 1 - at_);
  }

  void class_item() {
    const char c = in_[at_];
    if (c == '\\') return escape();
    if (c == '[') return refuse("class inside a class");
    if (starts("&&")) return refuse("&& in a class");
    if (c == ']') in_class_ = false;
    if (caseless_ && static_cast<unsigned char>(c) >= 0x80) return refuse("letter beyond ASCII in a pattern with (?i)");
    take(1);
  }

  void escape() {
    const char c = peek(1);
    switch (c) {
      case 's':
        return put(2, "\\p{White_Space}");  // PCRE2's own \s has U+180E too
      case 'S':
        return put(2, "\\P{White_Space}");
      case 'w':
        return put(2, in_class_ ? std::string(kWord) : concat("[", kWord, "]"));
      case 'W':
        if (in_class_) return refuse("\\W in a class");
        return put(2, concat("[^", kWord, "]"));
      case 'v':  // a class in PCRE2
        return put(2, "\\x{0b}");
      case 'p':
      case 'P':
        return property();
      case 'u':
        return hexadecimal(4);
      case 'x':
        return peek(2) == '{' ? braced_hexadecimal() : hexadecimal(2);
      case 'd':
      case 'D':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'e':
      case 'a':
        return take(2);
      default:
        if (c == '\0' || is_letter(c) || is_digit(c)) return refuse(concat("escape \\", c));
        return take(2);
    }
  }

  void property() {
    const std::size_t close = in_.find('}', at_);
    if (peek(2) != '{' || close == std::string_view::npos) return refuse("property without {}");
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    out_ += in_.substr(at_, 3);
    if (!name.empty() && name[0] == '^') {
      out_ += '^';
      name.remove_prefix(1);
    }
    // Longer names than a general category's are taken as scripts: PCRE2's bare name would be the script extensions,
    // and it refuses at compile time what is no script.
    if (name.size() > 2) out_ += "sc:";
    out_ += concat(name, "}");
    at_ = close + 1;
  }

  void hexadecimal(std::size_t digits) {
    const std::string_view value = in_.substr(at_ + 2, digits);
    for (const char c : value)
      if (std::isxdigit(static_cast<unsigned char>(c)) == 0) return refuse("hexadecimal escape");
    // Two digits are a byte in Oniguruma, a code point in PCRE2.
    if (value.size() != digits || (digits == 2 && value[0] > '7')) return refuse("hexadecimal escape");
    put(2 + digits, concat("\\x{", value, "}"));
  }

  void braced_hexadecimal() {
    const std::size_t close = in_.find('}', at_);
    if (close == std::string_view::npos) return refuse("hexadecimal escape");
    take(close + 1 - at_);
  }

  std::string_view in_;
  std::size_t at_ = 0;
  std::string out_;
  bool in_class_ = false;
  bool caseless_ = false;  // once a (?i was seen, to the end: refusing more than need be is safe
  char previous_literal_ = '\0';
  std::string refused_;  // what stopped the translation
};

}  // namespace

Result<std::string> to_pcre2_syntax(std::string_view pattern) {
  return Translator(pattern).run();
}

std::string escape_pattern(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\^$.[]|()?*+{}-&~# \n\r\t").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace multiverse::tokenizer
