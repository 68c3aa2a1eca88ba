#include "tokenizer/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "tokenizer/utf8.h"

namespace multiverse::tokenizer {
namespace {

struct Range {
  std::int32_t first;
  std::int32_t last;
};

// Characters of Unicode 10 to 15 with a combining class, and the parts of U+11938, the only composition of those
// versions. Found by comparing utf8proc 2.8 with `tokenizers` 0.23 over all code points;
// tests/tokenizer/test_against_huggingface.py compares again.
constexpr std::array<Range, 37> kNewerThanJudge = {{
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
    {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},
    {0xa82c, 0xa82c},   {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11930, 0x11930}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
}};

bool is_newer_than_judge(std::int32_t code_point) {
  if (code_point < kNewerThanJudge.front().first) return false;
  const auto* range = std::lower_bound(kNewerThanJudge.begin(), kNewerThanJudge.end(), code_point,
                                       [](const Range& r, std::int32_t c) { return r.last < c; });
  return range != kNewerThanJudge.end() && range->first <= code_point;
}

std::uint8_t combining_class(std::int32_t code_point) {
  return static_cast<std::uint8_t>(utf8proc_get_property(code_point)->combining_class);
}

void append_decomposed(std::int32_t code_point, std::vector<std::int32_t>& out) {
  std::array<utf8proc_int32_t, 8> parts{};  // the longest canonical decomposition has 4
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(code_point, parts.data(), parts.size(), UTF8PROC_DECOMPOSE, nullptr);
  if (count <= 0 || count > static_cast<utf8proc_ssize_t>(parts.size())) {
    out.push_back(code_point);
    return;
  }
  out.insert(out.end(), parts.begin(), parts.begin() + count);
}

// What NFC may do to one character, by code point. Two bits each, made once from utf8proc's decompositions.
class Behaviour {
 public:
  enum : std::uint8_t {
    kJoinsPrevious = 1,  // may be reordered or composed with what is before it: no chunk begins here
    kDecomposes = 2,
  };

  static const Behaviour& instance() {
    static const Behaviour behaviour;
    return behaviour;
  }

  std::uint8_t of(std::int32_t code_point) const {
    return code_point < kEnd ? flags_[static_cast<std::size_t>(code_point)] : std::uint8_t{0};
  }

 private:
  static constexpr std::int32_t kEnd = 0x2FA20;  // no character from here on has a decomposition or combining class

  Behaviour() : flags_(kEnd, 0) {
    // A composition's second part is the last of some character's full decomposition.
    std::vector<std::uint8_t> second(kEnd, 0);
    std::vector<std::int32_t> parts;
    const auto decompose = [&parts](std::int32_t c) -> const std::vector<std::int32_t>& {
      parts.clear();
      append_decomposed(c, parts);
      return parts;
    };
    for (std::int32_t c = 0; c < kEnd; ++c)
      if (decompose(c).size() > 1) second[static_cast<std::size_t>(parts.back())] = 1;
    for (std::int32_t c = 0; c < kEnd; ++c) {
      if (is_newer_than_judge(c)) continue;
      const std::int32_t first = decompose(c).front();
      std::uint8_t flags = 0;
      if (combining_class(first) != 0 || second[static_cast<std::size_t>(first)] != 0) flags |= kJoinsPrevious;
      if (parts.size() > 1 || first != c) flags |= kDecomposes;
      flags_[static_cast<std::size_t>(c)] = flags;
    }
  }

  std::vector<std::uint8_t> flags_;
};

// Each run of combining characters ordered by class, equals kept in order. Runs as long as the text are possible, hence
// counting instead of utf8proc's insertion sort.
void order_canonically(std::vector<std::int32_t>& text) {
  std::vector<std::int32_t> sorted;
  for (std::size_t begin = 0; begin < text.size();) {
    if (combining_class(text[begin]) == 0) {
      ++begin;
      continue;
    }
    std::array<std::size_t, 257> start{};
    std::size_t end = begin;
    bool ordered = true;
    for (; end < text.size() && combining_class(text[end]) != 0; ++end) {
      ++start[std::size_t{combining_class(text[end])} + 1];
      ordered = ordered && (end == begin || combining_class(text[end - 1]) <= combining_class(text[end]));
    }
    if (!ordered) {
      for (std::size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
      sorted.resize(end - begin);
      for (std::size_t i = begin; i < end; ++i) sorted[start[combining_class(text[i])]++] = text[i];
      std::copy(sorted.begin(), sorted.end(), text.begin() + static_cast<std::ptrdiff_t>(begin));
    }
    begin = end;
  }
}

class Composer {
 public:
  // `chunk`: a character and those that may join it. The scratch keeps its memory between calls.
  void append(std::string_view chunk, std::string& out) {
    code_points_.clear();
    for (std::size_t i = 0; i < chunk.size();) append_decomposed(decode_valid(chunk, i), code_points_);
    order_canonically(code_points_);
    const utf8proc_ssize_t count =
        utf8proc_normalize_utf32(code_points_.data(), static_cast<utf8proc_ssize_t>(code_points_.size()),
                                 static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    if (count < 0) {  // only for options that aren't set here
      out += chunk;
      return;
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) append_code_point(code_points_[i], out);
  }

 private:
  std::vector<std::int32_t> code_points_;
};

}  // namespace

bool may_change_in_nfc(std::string_view text) {
  // Below U+0300 (lead byte 0xCC) every character is composed already and nothing joins its neighbour.
  return std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0xCC; });
}

std::string to_nfc(std::string_view text, std::vector<NfcChunk>* chunks) {
  const Behaviour& behaviour = Behaviour::instance();
  Composer composer;
  std::string out;
  out.reserve(text.size());
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = begin;
    std::int32_t code_point = decode_valid(text, end);
    const bool inert = is_newer_than_judge(code_point);  // what follows never joins it
    bool plain = (behaviour.of(code_point) & Behaviour::kDecomposes) == 0;
    while (!inert && end < text.size()) {
      std::size_t next = end;
      code_point = decode_valid(text, next);
      if ((behaviour.of(code_point) & Behaviour::kJoinsPrevious) == 0) break;
      plain = false;
      end = next;
    }
    if (chunks != nullptr) chunks->push_back({begin, end, out.size()});
    if (plain) {
      out.append(text, begin, end - begin);
    } else {
      composer.append(text.substr(begin, end - begin), out);
    }
    begin = end;
  }
  return out;
}

}  // namespace multiverse::tokenizer
