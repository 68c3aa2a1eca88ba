#include <gtest/gtest.h>

#include <random>

#include "temporary_tokenizer.h"
#include "tokenizer/utf8.h"

namespace multiverse::test {
namespace {

TEST(IncrementalDetokenizer, HoldsBackUnfinishedCharacters) {
  IncrementalDetokenizer stream;
  EXPECT_EQ(stream.append("a\xf0"), "a");
  EXPECT_EQ(stream.append("\x9f\x98"), "");
  EXPECT_EQ(stream.append("\x80!"), "😀!");
  EXPECT_EQ(stream.append("\xe2\x82"), "");
  EXPECT_EQ(stream.append("x"), "\ufffdx");  // impossible to complete: one U+FFFD
  EXPECT_EQ(stream.append(""), "");
  EXPECT_EQ(stream.append("\xc3"), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.finish(), "");
}

// Bytes that meet all cases of UTF-8: characters, and the bytes at the ends of its ranges.
std::string random_bytes(std::mt19937& random) {
  static const std::vector<std::string> kParts = {"a",    "é",    "漢",   "😀",    "\xf0", "\x9f", "\xe0", "\xa0",
                                                  "\xed", "\xbf", "\xf4", "\x8f", "\x90", "\xc2", "\xc1", "\xff"};
  std::string bytes;
  for (std::size_t i = random() % 30; i > 0; --i)
    bytes += random() % 4 == 0 ? std::string(1, static_cast<char>(random() % 256)) : kParts[random() % kParts.size()];
  return bytes;
}

TEST(IncrementalDetokenizer, PiecesAreValidAndJoinToTheDecodedWhole) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto loaded = load(small_tokenizer());
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  const Tokenizer& tokenizer = *loaded.value();
  for (int round = 0; round < 20'000; ++round) {
    std::vector<std::int32_t> ids;
    for (const char byte : random_bytes(random)) {
      ids.push_back(static_cast<unsigned char>(byte));
      if (random() % 8 == 0) ids.push_back(static_cast<std::int32_t>(random() % 270));
    }
    IncrementalDetokenizer stream;
    std::string joined;
    for (const std::int32_t id : ids) {
      const std::string piece = stream.append(tokenizer.token_bytes(id));
      ASSERT_TRUE(tokenizer::is_valid_utf8(piece));
      joined += piece;
    }
    joined += stream.finish();
    ASSERT_EQ(joined, tokenizer.decode(ids));
    ASSERT_TRUE(tokenizer::is_valid_utf8(joined));
  }
}

}  // namespace
}  // namespace multiverse::test
