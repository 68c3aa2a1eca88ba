#include "tokenizer/jinja_strings.h"

#include <algorithm>
#include <limits>
#include <set>

namespace multiverse::jinja {
namespace {

// As many cuts as a negative limit means.
std::size_t cuts(std::int64_t limit) {
  return limit < 0 ? std::numeric_limits<std::size_t>::max() : static_cast<std::size_t>(limit);
}

std::size_t skip_space(const std::string& bytes, std::size_t at, bool space) {
  while (at < bytes.size()) {
    const Character next = char_at(bytes, at);
    if (is_space(next.code) != space) break;
    at = next.end;
  }
  return at;
}

std::size_t skip_space_back(const std::string& bytes, std::size_t end, bool space) {
  while (end > 0) {
    const std::size_t start = char_start_before(bytes, end);
    if (is_space(char_at(bytes, start).code) != space) break;
    end = start;
  }
  return end;
}

// Pieces are charged as they come: a large text may have one for every byte or two.
void add_piece(Budget& budget, std::vector<Text>& out, const Text& text, std::size_t begin, std::size_t end) {
  budget.steps(1);
  budget.bytes(sizeof(Text) + end - begin);
  out.push_back(text.slice(begin, end));
}

std::vector<Text> split_words(Budget& budget, const Text& text, std::size_t limit) {
  std::vector<Text> out;
  const std::string& bytes = text.bytes();
  std::size_t at = skip_space(bytes, 0, true);
  while (at < bytes.size()) {
    if (out.size() == limit) {
      add_piece(budget, out, text, at, bytes.size());  // with the white space at its end, as Python's
      break;
    }
    const std::size_t end = skip_space(bytes, at, false);
    add_piece(budget, out, text, at, end);
    at = skip_space(bytes, end, true);
  }
  return out;
}

std::vector<Text> split_words_from_right(Budget& budget, const Text& text, std::size_t limit) {
  std::vector<Text> out;
  const std::string& bytes = text.bytes();
  std::size_t end = skip_space_back(bytes, bytes.size(), true);
  while (end > 0) {
    if (out.size() == limit) {
      add_piece(budget, out, text, 0, end);
      break;
    }
    const std::size_t start = skip_space_back(bytes, end, false);
    add_piece(budget, out, text, start, end);
    end = skip_space_back(bytes, start, true);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

bool is_line_break(char32_t code) {
  return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

}  // namespace

Text strip(const Text& text, const Text* chars, Side side) {
  std::set<char32_t> wanted;
  if (chars != nullptr) {
    for (std::size_t at = 0; at < chars->size();) {
      const Character next = char_at(chars->bytes(), at);
      wanted.insert(next.code);
      at = next.end;
    }
  }
  const auto goes = [&](char32_t code) { return chars == nullptr ? is_space(code) : wanted.count(code) > 0; };
  const std::string& bytes = text.bytes();
  std::size_t begin = 0, end = bytes.size();
  while (side != Side::kRight && begin < end) {
    const Character next = char_at(bytes, begin);
    if (!goes(next.code)) break;
    begin = next.end;
  }
  while (side != Side::kLeft && end > begin) {
    const std::size_t start = char_start_before(bytes, end);
    if (!goes(char_at(bytes, start).code)) break;
    end = start;
  }
  return text.slice(begin, end);
}

Text replace(Budget& budget, const Text& text, const Text& old_text, const Text& new_text, std::int64_t count) {
  Text out;
  const std::string& bytes = text.bytes();
  const std::size_t limit = cuts(count);
  std::size_t at = 0;
  const auto insert = [&] {
    budget.steps(1);
    budget.bytes(new_text.size());
    out.append(new_text);
  };
  for (std::size_t done = 0; done < limit; ++done) {
    const std::size_t found = find_bytes(bytes, old_text.bytes(), at);
    if (found == std::string::npos) break;
    out.append(text, at, found);
    insert();
    at = found + old_text.size();
    if (!old_text.empty()) continue;
    // An empty old text stands before every character and at the end.
    if (at == bytes.size()) return out;
    const std::size_t end = char_at(bytes, at).end;
    out.append(text, at, end);
    at = end;
  }
  out.append(text, at, bytes.size());
  return out;
}

std::vector<Text> split(Budget& budget, const Text& text, const Text* separator, std::int64_t limit) {
  if (separator == nullptr) return split_words(budget, text, cuts(limit));
  if (separator->empty()) fail("empty separator");
  std::vector<Text> out;
  std::size_t at = 0;
  while (out.size() < cuts(limit)) {
    const std::size_t found = find_bytes(text.bytes(), separator->bytes(), at);
    if (found == std::string::npos) break;
    add_piece(budget, out, text, at, found);
    at = found + separator->size();
  }
  add_piece(budget, out, text, at, text.size());
  return out;
}

std::vector<Text> split_from_right(Budget& budget, const Text& text, const Text* separator, std::int64_t limit) {
  if (separator == nullptr) return split_words_from_right(budget, text, cuts(limit));
  if (separator->empty()) fail("empty separator");
  // Reversed once, so that all searches together are linear.
  const std::string reversed(text.bytes().rbegin(), text.bytes().rend());
  const std::string needle(separator->bytes().rbegin(), separator->bytes().rend());
  std::vector<Text> out;
  std::size_t at = 0;
  while (out.size() < cuts(limit)) {
    const std::size_t found = find_bytes(reversed, needle, at);
    if (found == std::string::npos) break;
    add_piece(budget, out, text, text.size() - found, text.size() - at);
    at = found + needle.size();
  }
  add_piece(budget, out, text, 0, text.size() - at);
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Text> split_lines(Budget& budget, const Text& text, bool keep_ends) {
  std::vector<Text> out;
  const std::string& bytes = text.bytes();
  std::size_t begin = 0;
  for (std::size_t at = 0; at < bytes.size();) {
    const Character next = char_at(bytes, at);
    if (!is_line_break(next.code)) {
      at = next.end;
      continue;
    }
    const bool pair = next.code == '\r' && next.end < bytes.size() && bytes[next.end] == '\n';
    const std::size_t end = pair ? next.end + 1 : next.end;
    add_piece(budget, out, text, begin, keep_ends ? end : at);
    begin = at = end;
  }
  if (begin < bytes.size()) add_piece(budget, out, text, begin, bytes.size());
  return out;
}

Text with_case(const Text& text, const std::function<Case(std::size_t, char32_t)>& wanted) {
  Text out;
  std::string mapped;
  for (std::size_t at = 0; at < text.size();) {
    const Character next = char_at(text.bytes(), at);
    mapped.clear();
    append_cased(mapped, next.code, wanted(at, next.code));
    out.append(mapped, text.trust_at(at));
    at = next.end;
  }
  return out;
}

Text upper(const Text& text) {
  return with_case(text, [](std::size_t, char32_t) { return Case::kUpper; });
}

Text lower(const Text& text) {
  return with_case(text, [](std::size_t, char32_t) { return Case::kLower; });
}

Text capitalize(const Text& text) {
  return with_case(text, [](std::size_t at, char32_t) { return at == 0 ? Case::kTitle : Case::kLower; });
}

Text title_method(const Text& text) {
  bool inside = false;
  return with_case(text, [&inside](std::size_t, char32_t code) {
    const Case wanted = inside ? Case::kLower : Case::kTitle;
    inside = is_cased(code);
    return wanted;
  });
}

Text title_filter(const Text& text) {
  bool inside = false;
  return with_case(text, [&inside](std::size_t, char32_t code) {
    const bool between = is_space(code) || code == '-' || code == '(' || code == '{' || code == '[' || code == '<';
    const Case wanted = inside ? Case::kLower : Case::kUpper;
    inside = !between;
    return wanted;
  });
}

Text join(Budget& budget, const Text& separator, const std::vector<TextPtr>& parts) {
  Text out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    budget.bytes(parts[i]->size() + separator.size());
    if (i > 0) out.append(separator);
    out.append(*parts[i]);
  }
  return out;
}

std::int64_t count_occurrences(const Text& text, const Text& part) {
  if (part.empty()) return static_cast<std::int64_t>(count_chars(text.bytes())) + 1;
  std::int64_t count = 0;
  for (std::size_t at = 0; (at = find_bytes(text.bytes(), part.bytes(), at)) != std::string::npos; at += part.size()) {
    ++count;
  }
  return count;
}

}  // namespace multiverse::jinja
