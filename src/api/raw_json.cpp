#include "api/raw_json.h"

#include <algorithm>

#include "api/json.h"

namespace multiverse {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

// Walks over a valid text.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) { space(); }

  // What stands here, without moving; '\0' at the end.
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_one() {
    ++at_;
    space();
  }
  // The value that begins here.
  std::string_view value() {
    const std::size_t begin = at_;
    if (peek() == '"') {
      string();
    } else if (peek() == '{' || peek() == '[') {
      brackets();
    } else {
      at_ = std::min(text_.find_first_of(" \t\r\n,]}", at_), text_.size());
    }
    const std::string_view found = text_.substr(begin, at_ - begin);
    space();
    return found;
  }

 private:
  void space() { at_ = std::min(text_.find_first_not_of(kSpace, at_), text_.size()); }
  void string() {
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\') ++at_;
    }
    at_ = std::min(at_ + 1, text_.size());
  }
  void brackets() {
    std::size_t depth = 0;
    do {
      if (peek() == '"') {
        string();
        continue;
      }
      if (peek() == '{' || peek() == '[') ++depth;
      if (peek() == '}' || peek() == ']') --depth;
      ++at_;
    } while (depth > 0 && at_ < text_.size());
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

bool is_key(std::string_view raw, std::string_view name) {
  if (raw.find('\\') == std::string_view::npos) return raw.size() >= 2 && raw.substr(1, raw.size() - 2) == name;
  return Json::parse(raw, nullptr, /*allow_exceptions=*/false) == name;
}

std::string_view member(std::string_view json, std::string_view name) {
  Cursor cursor(json);
  if (cursor.peek() != '{') return "";
  cursor.skip_one();
  while (cursor.peek() == '"') {
    const std::string_view key = cursor.value();
    cursor.skip_one();  // the colon
    const std::string_view value = cursor.value();
    if (is_key(key, name)) return value;
    cursor.skip_one();  // a comma, or the end
  }
  return "";
}

}  // namespace

std::string_view raw_member(std::string_view json, std::initializer_list<std::string_view> path) {
  for (const std::string_view name : path) json = member(json, name);
  return json;
}

std::vector<std::string_view> raw_elements(std::string_view json) {
  std::vector<std::string_view> values;
  Cursor cursor(json);
  if (cursor.peek() != '[') return values;
  cursor.skip_one();
  while (cursor.peek() != ']' && cursor.peek() != '\0') {
    values.push_back(cursor.value());
    if (cursor.peek() == ',') cursor.skip_one();
  }
  return values;
}

}  // namespace multiverse
