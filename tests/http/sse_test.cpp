// SseSplitter: what comes out doesn't depend on how the bytes were cut.
#include "multiverse/http/sse.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace multiverse {
namespace {

std::vector<std::string> split(const std::vector<std::string_view>& pieces) {
  SseSplitter splitter;
  std::vector<std::string> events;
  for (const std::string_view piece : pieces) {
    EXPECT_TRUE(splitter.add(piece, [&](std::string_view data) { events.emplace_back(data); }).ok());
  }
  return events;
}

TEST(Sse, ReadsFieldsAsTheStandardHasThem) {
  EXPECT_EQ(split({"data: a\n\ndata:b\n\ndata:  c\n\n"}), (std::vector<std::string>{"a", "b", " c"}));
  EXPECT_EQ(split({": ping\n\nevent: x\nid: 1\ndata: a\ndata\ndata: b\n\n\n"}), (std::vector<std::string>{"a\n\nb"}));
  EXPECT_EQ(split({"data: a\r\n\r\ndata: b\r\rdata: c\n\n"}), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(split({"data\n\n"}), std::vector<std::string>{""});
  EXPECT_EQ(split({"database: a\n\n"}), std::vector<std::string>{});
}

TEST(Sse, WhatTheEndCutsOffIsNoEvent) {
  EXPECT_EQ(split({"data: a\n"}), std::vector<std::string>{});
  EXPECT_EQ(split({"data: a"}), std::vector<std::string>{});
}

TEST(Sse, CutsMakeNoDifference) {
  const std::string stream =
      ": hello\r\n\r\ndata: {\"a\": \"\xC3\xA9\"}\r\n\r\ndata: x\ndata: y\n\n\rdata: z\r\rdata: [DONE]\n\n";
  const std::vector<std::string> whole = split({stream});
  ASSERT_EQ(whole, (std::vector<std::string>{"{\"a\": \"\xC3\xA9\"}", "x\ny", "z", "[DONE]"}));
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    const std::string_view view = stream;
    EXPECT_EQ(split({view.substr(0, cut), view.substr(cut)}), whole) << "cut at " << cut;
  }
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string_view> pieces;
    for (std::string_view rest = stream; !rest.empty();) {
      const std::size_t size = std::min<std::size_t>(rest.size(), random() % 5);
      pieces.push_back(rest.substr(0, size));
      rest.remove_prefix(size);
    }
    ASSERT_EQ(split(pieces), whole);
  }
}

TEST(Sse, AnEventWithoutAnEndIsRefusedAtItsLimit) {
  SseSplitter splitter;
  const std::string megabyte(1 << 20, 'x');
  int pieces = 0;
  while (pieces < 20 && splitter.add(megabyte, [](std::string_view) {}).ok()) ++pieces;
  EXPECT_EQ(pieces, 16);
}

}  // namespace
}  // namespace multiverse
