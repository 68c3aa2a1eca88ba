#include "tokenizer/jinja_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

namespace multiverse::jinja {

Trust Text::trust_at(std::size_t position) const {
  return std::upper_bound(runs_.begin(), runs_.end(), position,
                          [](std::size_t at, const Run& run) { return at < run.end; })
      ->trust;
}

void Text::append(std::string_view bytes, Trust trust) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().trust == trust) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), trust});
  }
}

void Text::append(const Text& other, std::size_t begin, std::size_t end) {
  auto run = std::upper_bound(other.runs_.begin(), other.runs_.end(), begin,
                              [](std::size_t at, const Run& candidate) { return at < candidate.end; });
  const std::string_view bytes = other.bytes_;
  while (begin < end) {
    const std::size_t stop = std::min(end, run->end);
    append(bytes.substr(begin, stop - begin), run->trust);
    begin = stop;
    ++run;
  }
}

Text Text::slice(std::size_t begin, std::size_t end) const {
  Text out;
  out.append(*this, begin, end);
  return out;
}

TrustedText Text::spans() const {
  TrustedText out;
  out.reserve(runs_.size());
  std::size_t begin = 0;
  for (const Run& run : runs_) {
    out.push_back({bytes_.substr(begin, run.end - begin), run.trust});
    begin = run.end;
  }
  return out;
}

Character char_at(std::string_view text, std::size_t position) {
  const auto lead = static_cast<unsigned char>(text[position]);
  if (lead < 0x80) return {lead, position + 1};
  utf8proc_int32_t code = 0;
  const auto length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + position,
                       static_cast<utf8proc_ssize_t>(std::min<std::size_t>(4, text.size() - position)), &code);
  if (length <= 0) return {0xFFFD, position + 1};
  return {static_cast<char32_t>(code), position + static_cast<std::size_t>(length)};
}

std::size_t char_start_before(std::string_view text, std::size_t end) {
  for (std::size_t length = 2; length <= 4 && length <= end; ++length) {
    if (char_at(text.substr(0, end), end - length).end == end) return end - length;
  }
  return end - 1;
}

std::size_t count_chars(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); at = char_at(text, at).end) ++count;
  return count;
}

std::vector<std::size_t> char_offsets(std::string_view text) {
  std::vector<std::size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (std::size_t at = 0; at < text.size(); at = char_at(text, at).end) offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

void append_utf8(std::string& out, char32_t code) {
  utf8proc_uint8_t buffer[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<std::size_t>(length));
}

bool is_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
         code == 0x205F || code == 0x3000;
}

bool is_printable(char32_t code) {
  if (code == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::size_t find_bytes(std::string_view text, std::string_view needle, std::size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
}

std::size_t rfind_bytes(std::string_view text, std::string_view needle) {
  const std::string reversed(text.rbegin(), text.rend());
  const std::string reversed_needle(needle.rbegin(), needle.rend());
  const std::size_t found = find_bytes(reversed, reversed_needle);
  return found == std::string_view::npos ? found : text.size() - found - needle.size();
}

void append_cased(std::string& out, char32_t code, Case wanted) {
  const auto point = static_cast<utf8proc_int32_t>(code);
  if (code == 0xDF && wanted != Case::kLower) {
    out += wanted == Case::kUpper ? "SS" : "Ss";
    return;
  }
  switch (wanted) {
    case Case::kUpper:
      return append_utf8(out, static_cast<char32_t>(utf8proc_toupper(point)));
    case Case::kLower:
      return append_utf8(out, static_cast<char32_t>(utf8proc_tolower(point)));
    case Case::kTitle:
      return append_utf8(out, static_cast<char32_t>(utf8proc_totitle(point)));
  }
}

bool is_cased(char32_t code) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

}  // namespace multiverse::jinja
