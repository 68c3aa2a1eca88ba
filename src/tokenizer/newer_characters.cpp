#include "tokenizer/newer_characters.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "tokenizer/utf8.h"

namespace multiverse::tokenizer {
namespace {

// An older character for each category and length in bytes.
enum Older : std::int32_t {
  kUpper3 = 0x1E00,
  kLower3 = 0x1E01,
  kMark3 = 0x900,
  kPunctuation3 = 0x2010,
  kSymbol3 = 0x2190,
  kUpper4 = 0x10400,
  kLower4 = 0x10428,
  kModifier4 = 0x10780,
  kLetter4 = 0x10000,
  kHan4 = 0x20000,
  kDigit4 = 0x104A0,
  kNumber4 = 0x10107,
  kMark4 = 0x101FD,
  kPunctuation4 = 0x10100,
  kSymbol4 = 0x1F600,
};

struct NewerRange {
  std::int32_t first;
  std::int32_t last;
  Older older;
};

// Found by comparing PCRE2 10.42 with `tokenizers` 0.23 over all code points, property by property;
// tests/tokenizer/test_against_huggingface.py compares again.
constexpr NewerRange kNewer[] = {
    {0x897, 0x897, kMark3},
    {0xcf3, 0xcf3, kMark3},
    {0xece, 0xece, kMark3},
    {0x1b4e, 0x1b4f, kPunctuation3},
    {0x1b7f, 0x1b7f, kPunctuation3},
    {0x1c89, 0x1c89, kUpper3},
    {0x1c8a, 0x1c8a, kLower3},
    {0x2427, 0x2429, kSymbol3},
    {0x2ffc, 0x2fff, kSymbol3},
    {0x31e4, 0x31e5, kSymbol3},
    {0x31ef, 0x31ef, kSymbol3},
    {0xa7cb, 0xa7cc, kUpper3},
    {0xa7cd, 0xa7cd, kLower3},
    {0xa7da, 0xa7da, kUpper3},
    {0xa7db, 0xa7db, kLower3},
    {0xa7dc, 0xa7dc, kUpper3},
    {0x105c0, 0x105f3, kLetter4},
    {0x10d40, 0x10d49, kDigit4},
    {0x10d4a, 0x10d4d, kLetter4},
    {0x10d4e, 0x10d4e, kModifier4},
    {0x10d4f, 0x10d4f, kLetter4},
    {0x10d50, 0x10d65, kUpper4},
    {0x10d69, 0x10d6d, kMark4},
    {0x10d6e, 0x10d6e, kPunctuation4},
    {0x10d6f, 0x10d6f, kModifier4},
    {0x10d70, 0x10d85, kLower4},
    {0x10d8e, 0x10d8f, kSymbol4},
    {0x10ec2, 0x10ec4, kLetter4},
    {0x10efc, 0x10eff, kMark4},
    {0x1123f, 0x11240, kLetter4},
    {0x11241, 0x11241, kMark4},
    {0x11380, 0x11389, kLetter4},
    {0x1138b, 0x1138b, kLetter4},
    {0x1138e, 0x1138e, kLetter4},
    {0x11390, 0x113b5, kLetter4},
    {0x113b7, 0x113b7, kLetter4},
    {0x113b8, 0x113c0, kMark4},
    {0x113c2, 0x113c2, kMark4},
    {0x113c5, 0x113c5, kMark4},
    {0x113c7, 0x113ca, kMark4},
    {0x113cc, 0x113d0, kMark4},
    {0x113d1, 0x113d1, kLetter4},
    {0x113d2, 0x113d2, kMark4},
    {0x113d3, 0x113d3, kLetter4},
    {0x113d4, 0x113d5, kPunctuation4},
    {0x113d7, 0x113d8, kPunctuation4},
    {0x113e1, 0x113e2, kMark4},
    {0x116d0, 0x116e3, kDigit4},
    {0x11b00, 0x11b09, kPunctuation4},
    {0x11bc0, 0x11be0, kLetter4},
    {0x11be1, 0x11be1, kPunctuation4},
    {0x11bf0, 0x11bf9, kDigit4},
    {0x11f00, 0x11f01, kMark4},
    {0x11f02, 0x11f02, kLetter4},
    {0x11f03, 0x11f03, kMark4},
    {0x11f04, 0x11f10, kLetter4},
    {0x11f12, 0x11f33, kLetter4},
    {0x11f34, 0x11f3a, kMark4},
    {0x11f3e, 0x11f42, kMark4},
    {0x11f43, 0x11f4f, kPunctuation4},
    {0x11f50, 0x11f59, kDigit4},
    {0x11f5a, 0x11f5a, kMark4},
    {0x1342f, 0x1342f, kLetter4},
    {0x13440, 0x13440, kMark4},
    {0x13441, 0x13446, kLetter4},
    {0x13447, 0x13455, kMark4},
    {0x13460, 0x143fa, kLetter4},
    {0x16100, 0x1611d, kLetter4},
    {0x1611e, 0x1612f, kMark4},
    {0x16130, 0x16139, kDigit4},
    {0x16d40, 0x16d42, kModifier4},
    {0x16d43, 0x16d6a, kLetter4},
    {0x16d6b, 0x16d6c, kModifier4},
    {0x16d6d, 0x16d6f, kPunctuation4},
    {0x16d70, 0x16d79, kDigit4},
    {0x18cff, 0x18cff, kLetter4},
    {0x1b132, 0x1b132, kLetter4},
    {0x1b155, 0x1b155, kLetter4},
    {0x1cc00, 0x1ccef, kSymbol4},
    {0x1ccf0, 0x1ccf9, kDigit4},
    {0x1cd00, 0x1ceb3, kSymbol4},
    {0x1d2c0, 0x1d2d3, kNumber4},
    {0x1df25, 0x1df2a, kLower4},
    {0x1e030, 0x1e06d, kModifier4},
    {0x1e08f, 0x1e08f, kMark4},
    {0x1e4d0, 0x1e4ea, kLetter4},
    {0x1e4eb, 0x1e4eb, kModifier4},
    {0x1e4ec, 0x1e4ef, kMark4},
    {0x1e4f0, 0x1e4f9, kDigit4},
    {0x1e5d0, 0x1e5ed, kLetter4},
    {0x1e5ee, 0x1e5ef, kMark4},
    {0x1e5f0, 0x1e5f0, kLetter4},
    {0x1e5f1, 0x1e5fa, kDigit4},
    {0x1e5ff, 0x1e5ff, kPunctuation4},
    {0x1f6dc, 0x1f6dc, kSymbol4},
    {0x1f774, 0x1f776, kSymbol4},
    {0x1f77b, 0x1f77f, kSymbol4},
    {0x1f7d9, 0x1f7d9, kSymbol4},
    {0x1f8b2, 0x1f8bb, kSymbol4},
    {0x1f8c0, 0x1f8c1, kSymbol4},
    {0x1fa75, 0x1fa77, kSymbol4},
    {0x1fa87, 0x1fa89, kSymbol4},
    {0x1fa8f, 0x1fa8f, kSymbol4},
    {0x1faad, 0x1faaf, kSymbol4},
    {0x1fabb, 0x1fabf, kSymbol4},
    {0x1fac6, 0x1fac6, kSymbol4},
    {0x1face, 0x1facf, kSymbol4},
    {0x1fada, 0x1fadc, kSymbol4},
    {0x1fadf, 0x1fadf, kSymbol4},
    {0x1fae8, 0x1fae9, kSymbol4},
    {0x1faf7, 0x1faf8, kSymbol4},
    {0x1fbcb, 0x1fbef, kSymbol4},
    {0x2b739, 0x2b739, kHan4},
    {0x2ebf0, 0x2ee5d, kHan4},
    {0x31350, 0x323af, kHan4},
};

}  // namespace

bool may_have_newer_characters(std::string_view text) {
  // The first is U+0897, whose lead byte is 0xE0.
  return std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0xE0; });
}

std::string with_older_characters(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  std::size_t copied = 0;
  for (std::size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0xE0) {  // a shorter character, or the rest of one
      ++i;
      continue;
    }
    const std::size_t begin = i;
    const std::int32_t c = decode_valid(text, i);
    const auto* range =
        std::lower_bound(std::begin(kNewer), std::end(kNewer), c,
                         [](const NewerRange& r, std::int32_t code_point) { return r.last < code_point; });
    if (range == std::end(kNewer) || c < range->first) continue;
    out.append(text, copied, begin - copied);
    append_code_point(range->older, out);
    copied = i;
  }
  out.append(text, copied);
  return out;
}

}  // namespace multiverse::tokenizer
