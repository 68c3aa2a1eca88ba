// The parts of the tokenizer by themselves, against slow and obvious versions.
#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <map>
#include <random>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/nfc.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/trust_map.h"
#include "tokenizer/utf8.h"

namespace multiverse::tokenizer {
namespace {

class Seeded : public testing::Test {
 protected:
  std::size_t below(std::size_t limit) { return random_() % limit; }
  const unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  const testing::ScopedTrace trace_{__FILE__, __LINE__, testing::Message() << "seed " << seed_};
};

// The pair of lowest rank, leftmost first, until there is none.
std::vector<std::int32_t> merge_slowly(const BpeData& data, std::string_view piece) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::pair<std::size_t, std::int32_t>> rules;
  for (std::size_t rank = 0; rank < data.merges.size(); ++rank)
    rules[{data.merges[rank].left, data.merges[rank].right}] = {rank, data.merges[rank].result};
  std::vector<std::int32_t> ids;
  for (const char byte : piece) ids.push_back(data.byte_token[static_cast<unsigned char>(byte)]);
  while (true) {
    std::size_t best_rank = data.merges.size();
    std::size_t best = 0;
    std::int32_t result = -1;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto rule = rules.find({ids[i], ids[i + 1]});
      if (rule == rules.end() || rule->second.first >= best_rank) continue;
      best_rank = rule->second.first;
      best = i;
      result = rule->second.second;
    }
    if (result < 0) return ids;
    ids[best] = result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

using BpeAgainstSlow = Seeded;

TEST_F(BpeAgainstSlow, RandomMerges) {
  for (int round = 0; round < 60; ++round) {
    BpeData data;
    std::map<std::string, std::int32_t> ids;
    for (int byte = 0; byte < 256; ++byte) {
      data.tokens.emplace_back(1, static_cast<char>(byte));
      data.byte_token[static_cast<std::size_t>(byte)] = byte;
      ids[data.tokens.back()] = byte;
    }
    for (std::size_t i = below(40); i > 0; --i) {
      const auto part = [&] {
        return static_cast<std::int32_t>(
            data.tokens.size() == 256 || below(2) == 0 ? 'a' + below(3) : 256 + below(data.tokens.size() - 256));
      };
      const std::int32_t left = part();
      const std::int32_t right = part();
      const std::string bytes =
          data.tokens[static_cast<std::size_t>(left)] + data.tokens[static_cast<std::size_t>(right)];
      const auto [found, is_new] = ids.emplace(bytes, static_cast<std::int32_t>(data.tokens.size()));
      if (is_new) data.tokens.push_back(bytes);
      data.merges.push_back({left, right, found->second});
    }
    // Half the rounds with ranks that fall and repeat.
    if (round % 2 == 0) std::shuffle(data.merges.begin(), data.merges.end(), random_);
    data.in_alphabet.assign(data.tokens.size(), true);
    const Bpe bpe(data);
    Bpe::Scratch scratch;
    for (int i = 0; i < 30; ++i) {
      std::string piece;
      for (std::size_t length = below(200); length > 0; --length) piece += static_cast<char>('a' + below(3));
      std::vector<std::int32_t> got;
      bpe.encode(piece, got, scratch);
      ASSERT_EQ(got, merge_slowly(data, piece)) << piece;
    }
  }
}

std::string library_nfc(const std::string& text) {
  auto* const normal = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
  std::string out(reinterpret_cast<const char*>(normal));
  std::free(normal);
  return out;
}

using Nfc = Seeded;

TEST_F(Nfc, EqualsTheLibrarysWhereTheJudgeKnowsTheCharacters) {
  // Marks of many classes, starters that compose with each other, singletons, exclusions; all older than Unicode 10.
  const std::vector<std::int32_t> characters = {
      'a',    'e',    'o',    0x00e9, 0x0300, 0x0301, 0x0316, 0x0323, 0x0327, 0x0334,  0x0338,  0x0344,  0x0345,
      0x0958, 0x093c, 0x0915, 0x09c7, 0x09be, 0x0bc6, 0x0bbe, 0x0f73, 0x0f71, 0x1100,  0x1161,  0x11a8,  0xac00,
      0xac01, 0x1e69, 0x1e9b, 0x2126, 0x212b, 0x2adc, 0x3099, 0x304b, 0xf900, 0x1d15e, 0x1d165, 0x2f800, 0x110ba};
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (std::size_t i = below(12); i > 0; --i) append_code_point(characters[below(characters.size())], text);
    std::vector<NfcChunk> chunks;
    ASSERT_EQ(to_nfc(text, &chunks), library_nfc(text)) << testing::PrintToString(text);
    std::size_t covered = 0;
    for (const NfcChunk& chunk : chunks) {
      ASSERT_EQ(chunk.source_begin, covered);
      covered = chunk.source_end;
    }
    ASSERT_EQ(covered, text.size());
    if (!may_change_in_nfc(text)) {
      ASSERT_EQ(to_nfc(text), text);
    }
  }
}

TEST(Utf8, BackAndForthOverAllCodePoints) {
  for (std::int32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text = "x";
    append_code_point(c, text);
    ASSERT_TRUE(is_valid_utf8(text));
    std::size_t at = 1;
    ASSERT_EQ(decode_valid(text, at), c);
    ASSERT_EQ(at, text.size());
    ASSERT_EQ(previous_character(text, text.size()), 1u);
    // Cut short it is unfinished, never invalid.
    if (text.size() > 2) {
      ASSERT_EQ(next_sequence(std::string_view(text).substr(1, text.size() - 2)).state, SequenceState::kUnfinished);
    }
  }
}

TEST(TrustMap, LowestOverRuns) {
  TrustMap map;
  map.append(3, Trust::kAll);
  map.append(0, Trust::kNone);
  map.append(2, Trust::kDialect);
  map.append(1, Trust::kNone);
  EXPECT_EQ(map.lowest(0, 3), Trust::kAll);
  EXPECT_EQ(map.lowest(2, 4), Trust::kDialect);
  EXPECT_EQ(map.lowest(4, 6), Trust::kNone);
  EXPECT_EQ(map.lowest(5, 6), Trust::kNone);
  EXPECT_EQ(map.highest(), Trust::kAll);
  TrustMap part;
  part.append_from(map, 2, 5);
  EXPECT_EQ(part.lowest(0, 1), Trust::kAll);
  EXPECT_EQ(part.lowest(0, 3), Trust::kDialect);
}

std::vector<std::string> pieces_of(const PreTokenizer& pre_tokenizer, std::string_view text) {
  std::vector<std::string> pieces;
  pre_tokenizer.run(text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

TEST(PreTokenizer, BehavioursOfSplit) {
  using Pieces = std::vector<std::string>;
  const auto split = [](SplitBehavior behavior, bool invert) {
    auto pattern = SplitPattern::compile("-");
    EXPECT_TRUE(pattern.ok());
    return pieces_of({{{pattern.value(), behavior, invert}}, false, nullptr}, "the-final--countdown");
  };
  EXPECT_EQ(split(SplitBehavior::kRemoved, false), (Pieces{"the", "final", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kIsolated, false), (Pieces{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious, false), (Pieces{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext, false), (Pieces{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split(SplitBehavior::kContiguous, false), (Pieces{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kRemoved, true), (Pieces{"-", "-", "-"}));
}

TEST(PreTokenizer, RunsOfWhiteSpaceLongerThanTheFirstTrysLimit) {
  auto pattern = SplitPattern::compile("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+|\\S+");
  ASSERT_TRUE(pattern.ok()) << pattern.error().message;
  const PreTokenizer pre_tokenizer{{{pattern.value(), SplitBehavior::kIsolated, false}}, false, nullptr};
  const std::string spaces(500'000, ' ');
  EXPECT_EQ(pieces_of(pre_tokenizer, spaces), std::vector<std::string>{spaces});
  EXPECT_EQ(pieces_of(pre_tokenizer, spaces + "\nx"), (std::vector<std::string>{spaces + "\n", "x"}));
  EXPECT_EQ(pieces_of(pre_tokenizer, spaces + "  x"), (std::vector<std::string>{spaces + " ", " ", "x"}));
}

TEST(PreTokenizer, OnigurumasWhiteSpaceIsUnicodes) {
  auto pattern = SplitPattern::compile("[\\s]");
  ASSERT_TRUE(pattern.ok());
  std::vector<TextRange> matches;
  pattern.value()->find_all("\u180e\u0085\u2028 ", matches);  // U+180E is a space to PCRE2's own \s
  ASSERT_EQ(matches.size(), 3u);
  EXPECT_EQ(matches[0].begin, 3u);
}

}  // namespace
}  // namespace multiverse::tokenizer
