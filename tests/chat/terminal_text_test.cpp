#include "multiverse/chat/terminal_text.h"

#include <gtest/gtest.h>

#include <random>

namespace multiverse {
namespace {

TEST(TerminalText, LeavesTextAlone) {
  EXPECT_EQ(for_terminal("a\tb\nc é 漢 👩‍🔬"), "a\tb\nc é 漢 👩‍🔬");
  EXPECT_EQ(for_terminal("a\tb\nc", /*one_line=*/true), "a b c");
}

TEST(TerminalText, ShowsWhatATerminalWouldObey) {
  EXPECT_EQ(for_terminal("\x1b[2J\r\b\x07\x7f"), "\\x1b[2J\\x0d\\x08\\x07\\x7f");
  EXPECT_EQ(for_terminal(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(for_terminal("\xC2\x9B"
                         "31m"),
            "\\u009b31m");  // CSI as one character of C1
  EXPECT_EQ(for_terminal("\xE2\x80\xAE"
                         "abc"),
            "\\u202eabc");  // right to left from here on
  EXPECT_EQ(for_terminal("\xE2\x80\xA8"
                         "x"),
            "\\u2028x");
  EXPECT_EQ(for_terminal("\x9B"
                         "31m\xC3"),
            "\\x9b31m\\xc3");  // no UTF-8
}

TEST(TerminalText, RandomBytesNeverReachTheTerminalRaw) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 40, ' ');
    for (char& byte : bytes) byte = static_cast<char>(random());
    const std::string shown = for_terminal(bytes);
    for (std::size_t i = 0; i < shown.size(); ++i) {
      const auto byte = static_cast<unsigned char>(shown[i]);
      ASSERT_TRUE(byte >= 0x20 || byte == '\n' || byte == '\t');
      ASSERT_NE(byte, 0x7F);
      ASSERT_TRUE(byte != 0xC2 || static_cast<unsigned char>(shown[i + 1]) >= 0xA0);
    }
    ASSERT_EQ(for_terminal(shown), shown);
    const int width = static_cast<int>(random() % 20);
    ASSERT_LE(columns(last_columns(for_terminal(bytes, true), width)), width);
  }
}

TEST(TerminalText, CountsColumns) {
  EXPECT_EQ(columns("abc"), 3);
  EXPECT_EQ(columns("漢字"), 4);
  EXPECT_EQ(columns("e\xCC\x81"), 1);  // e and a combining accent
}

TEST(TerminalText, CutsFromTheStart) {
  EXPECT_EQ(last_columns("abcdef", 6), "abcdef");
  EXPECT_EQ(last_columns("abcdef", 4), "…def");
  EXPECT_EQ(last_columns("漢字漢字", 4), "…字");  // three columns have room for one
  EXPECT_EQ(last_columns("abe\xCC\x81"
                         "d",
                         2),
            "…d");
  EXPECT_EQ(last_columns("abc", 0), "");
}

}  // namespace
}  // namespace multiverse
