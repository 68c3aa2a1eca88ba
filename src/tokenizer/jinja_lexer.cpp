#include "tokenizer/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_error.h"
#include "tokenizer/jinja_text.h"

namespace multiverse::jinja {
namespace {

using std::size_t;
constexpr size_t kNotFound = std::string_view::npos;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_name_char(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

// "\r\n" and "\r" become "\n", and one line's end at the very end goes.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) data();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void error(const std::string& message) const {
    throw TemplateError(TemplateError::Kind::kSyntax, message, line_);
  }

  void add(TokenKind kind, std::string_view text) { tokens_.push_back({kind, std::string(text), line_}); }

  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool looking_at(std::string_view text) const { return rest().substr(0, text.size()) == text; }

  // Goes on to `end`, counting lines.
  void move_to(size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    at_ = end;
  }

  // The white space sign of a tag there, or '\0'.
  char sign_at(size_t at) const {
    const bool sign = at < source_.size() && (source_[at] == '-' || source_[at] == '+');
    return sign ? source_[at] : '\0';
  }

  size_t after_space(size_t at) const {
    while (at < source_.size()) {
      const Character next = char_at(source_, at);
      if (!is_space(next.code)) break;
      at = next.end;
    }
    return at;
  }

  // Text up to the next tag, and the tag.
  void data() {
    size_t begin = at_;
    while ((begin = source_.find('{', begin)) != kNotFound) {
      const char second = begin + 1 < source_.size() ? source_[begin + 1] : '\0';
      if (second == '{' || second == '%' || second == '#') break;
      ++begin;
    }
    if (begin == kNotFound) {
      add(TokenKind::kData, rest());
      return move_to(source_.size());
    }
    const char kind = source_[begin + 1];
    size_t inside = begin + 2;
    const char sign = sign_at(inside);
    if (sign != 0) ++inside;
    add_data(begin, sign, kind == '{');
    move_to(inside);
    if (kind == '#') return comment();
    if (kind == '{') return variable();
    if (!raw()) block();
  }

  // The text before a tag, less the white space that the tag takes away.
  void add_data(size_t end, char sign, bool before_variable) {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    if (sign == '-') {
      size_t keep = text.size();
      while (keep > 0) {
        const size_t start = char_start_before(text, keep);
        if (!is_space(char_at(text, start).code)) break;
        keep = start;
      }
      text = text.substr(0, keep);
    } else if (sign != '+' && !before_variable) {
      // lstrip_blocks: only white space since the line's begin.
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == kNotFound ? 0 : newline + 1;
      if (line_begin > 0 || line_starting_) {
        size_t at = line_begin;
        while (at < text.size() && is_space(char_at(text, at).code)) at = char_at(text, at).end;
        if (at == text.size()) text = text.substr(0, line_begin);
      }
    }
    if (!text.empty()) add(TokenKind::kData, text);
  }

  // Behind the end tag of `length` at `at`: its white space, as its sign and trim_blocks want it.
  void close(size_t at, size_t length, char sign, bool trim) {
    size_t end = at + length;
    if (sign == '-') {
      end = after_space(end);
    } else if (trim && sign != '+' && end < source_.size() && source_[end] == '\n') {
      ++end;
    }
    move_to(end);
    line_starting_ = source_[end - 1] == '\n';
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == kNotFound) error("Missing end of comment tag");
    close(end, 2, end > at_ ? sign_at(end - 1) : '\0', true);
  }

  // {% raw %} … {% endraw %}, of which the begin is read up to its sign. False where it is another block.
  bool raw() {
    size_t at = after_space(at_);
    if (source_.compare(at, 3, "raw") != 0) return false;
    at = after_space(at + 3);
    const bool strip = source_.compare(at, 3, "-%}") == 0;
    if (!strip && source_.compare(at, 2, "%}") != 0) return false;
    move_to(strip ? after_space(at + 3) : at + 2);
    for (size_t begin = at_; (begin = source_.find("{%", begin)) != kNotFound; begin += 2) {
      size_t inside = begin + 2;
      const char sign = sign_at(inside);
      inside = after_space(sign != 0 ? inside + 1 : inside);
      if (source_.compare(inside, 6, "endraw") != 0) continue;
      inside = after_space(inside + 6);
      const char end_sign = sign_at(inside);
      if (end_sign != 0) ++inside;
      if (source_.compare(inside, 2, "%}") != 0) continue;
      line_starting_ = source_[at_ - 1] == '\n';
      add_data(begin, sign, false);
      close(inside, 2, end_sign, true);
      return true;
    }
    error("Missing end of raw directive");
  }

  void variable() {
    add(TokenKind::kVariableBegin, "");
    while (true) {
      if (at_ >= source_.size()) error("unexpected end of template in {{ … }}");
      if (brackets_.empty() && looking_at("-}}")) return end_tag(TokenKind::kVariableEnd, at_ + 1, '-');
      if (brackets_.empty() && looking_at("}}")) return end_tag(TokenKind::kVariableEnd, at_, '\0');
      expression_token();
    }
  }

  void block() {
    add(TokenKind::kBlockBegin, "");
    while (true) {
      if (at_ >= source_.size()) error("unexpected end of template in {% … %}");
      if (brackets_.empty()) {
        if (looking_at("-%}")) return end_tag(TokenKind::kBlockEnd, at_ + 1, '-');
        if (looking_at("+%}")) return end_tag(TokenKind::kBlockEnd, at_ + 1, '+');
        if (looking_at("%}")) return end_tag(TokenKind::kBlockEnd, at_, '\0');
      }
      expression_token();
    }
  }

  void end_tag(TokenKind kind, size_t at, char sign) {
    add(kind, "");
    close(at, 2, sign, kind == TokenKind::kBlockEnd);
  }

  void expression_token() {
    const size_t space = after_space(at_);
    if (space > at_) return move_to(space);
    const char c = source_[at_];
    if (is_digit(c)) return number();
    if (is_name_char(c)) return name();
    if (c == '\'' || c == '"') return string(c);
    oper();
  }

  void name() {
    size_t end = at_;
    while (end < source_.size() && is_name_char(source_[end])) ++end;
    add(TokenKind::kName, rest().substr(0, end - at_));
    move_to(end);
  }

  // End of digits with single underscores between them, or `at` where there are none.
  size_t after_digits(size_t at) const {
    while (at < source_.size() && is_digit(source_[at])) {
      ++at;
      if (at + 1 < source_.size() && source_[at] == '_' && is_digit(source_[at + 1])) ++at;
    }
    return at;
  }

  void number() {
    size_t end = after_digits(at_);
    bool is_float = false;
    // "x.0.5" are indices, not a fraction.
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    if (!after_dot) {
      if (end < source_.size() && source_[end] == '.' && after_digits(end + 1) > end + 1) {
        end = after_digits(end + 1);
        is_float = true;
      }
      if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
        const bool sign = end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
        const size_t exponent = end + 1 + (sign ? 1 : 0);
        if (after_digits(exponent) > exponent) {
          end = after_digits(exponent);
          is_float = true;
        }
      }
    }
    std::string digits(rest().substr(0, end - at_));
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    const bool leading_zero = !is_float && digits.size() > 1 && digits[0] == '0';
    const bool other_base = digits == "0" && end < source_.size() && std::isalpha(source_[end] & 0xFF) != 0;
    if (other_base || (leading_zero && digits.find_first_not_of('0') != kNotFound)) {
      error("only decimal numbers without leading zeros are supported");
    }
    add(is_float ? TokenKind::kFloat : TokenKind::kInteger, digits);
    move_to(end);
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? size_t{2} : size_t{1};
    if (end >= source_.size()) error("a string without its closing quote");
    const std::string_view inside = std::string_view(source_).substr(at_ + 1, end - at_ - 1);
    add(TokenKind::kString, unescaped(inside));
    move_to(end + 1);
  }

  // Python's escapes in a string literal.
  std::string unescaped(std::string_view text) const {
    static constexpr std::string_view kNames = "abfnrtv\\'\"", kValues = "\a\b\f\n\r\t\v\\'\"";
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 == text.size()) {
        out += text[i];
        continue;
      }
      const char kind = text[++i];
      const size_t named = kNames.find(kind);
      if (named != kNotFound) {
        out += kValues[named];
      } else if (kind == 'x' || kind == 'u' || kind == 'U') {
        const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
        append_code(out, text.substr(i + 1, digits), digits);
        i += digits;
      } else if (kind >= '0' && kind <= '7') {
        char32_t code = 0;
        const size_t limit = std::min(i + 3, text.size());
        for (; i < limit && text[i] >= '0' && text[i] <= '7'; ++i)
          code = code * 8 + static_cast<char32_t>(text[i] - '0');
        --i;
        append_utf8(out, code);
      } else if (kind == 'N') {
        error("\\N{…} in a string is not supported");
      } else if (kind != '\n') {  // an escaped line's end is nothing
        out += '\\';
        out += kind;
      }
    }
    return out;
  }

  void append_code(std::string& out, std::string_view digits, size_t wanted) const {
    const bool hex = std::all_of(digits.begin(), digits.end(), [](char c) { return std::isxdigit(c & 0xFF) != 0; });
    if (digits.size() != wanted || !hex) error("a truncated escape in a string");
    const auto code = static_cast<char32_t>(std::stoul(std::string(digits), nullptr, 16));
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) error("an escape that is no Unicode character");
    append_utf8(out, code);
  }

  void oper() {
    static constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                    ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const auto* found = std::find_if(kOperators.begin(), kOperators.end(), [&](auto text) { return looking_at(text); });
    if (found == kOperators.end())
      error(concat("unexpected character '", rest().substr(0, char_at(rest(), 0).end), "'"));
    static constexpr std::string_view kOpen = "([{", kClose = ")]}";
    const char c = (*found)[0];
    if (const size_t open = kOpen.find(c); open != kNotFound) brackets_ += kClose[open];
    if (kClose.find(c) != kNotFound) {
      if (brackets_.empty()) error(concat("unexpected '", c, "'"));
      if (brackets_.back() != c) error(concat("unexpected '", c, "', expected '", brackets_.back(), "'"));
      brackets_.pop_back();
    }
    add(TokenKind::kOperator, *found);
    move_to(at_ + found->size());
  }

  std::string source_;
  std::vector<Token> tokens_;
  std::string brackets_;  // the closing ones that are due
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the tag before ended with a line's end, or there was none
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(normalized(source)).run();
}

}  // namespace multiverse::jinja
