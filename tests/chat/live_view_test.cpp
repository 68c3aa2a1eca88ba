// LiveView against a terminal of the test's own: what is on the screen after each frame.
#include "multiverse/chat/live_view.h"

#include <gtest/gtest.h>

#include <cctype>
#include <random>
#include <utility>

#include "multiverse/chat/terminal_text.h"

namespace multiverse {
namespace {

using Kind = BranchUpdate::Kind;

// Lines of text, a cursor, and the three sequences that LiveView uses. Everything else fails the test.
class Screen {
 public:
  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const std::size_t used = take(bytes);
      bytes.remove_prefix(used);
    }
  }
  const std::vector<std::string>& lines() const { return lines_; }
  std::string text() const {
    std::string out;
    for (const std::string& line : lines_) out += line + "\n";
    return out;
  }

 private:
  std::size_t take(std::string_view bytes) {
    if (bytes.front() == '\n') {
      ++row_;
      if (row_ == lines_.size()) lines_.emplace_back();
      column_is_start_ = true;
      return 1;
    }
    if (bytes.front() == '\r') {
      column_is_start_ = true;
      return 1;
    }
    if (bytes.front() == '\x1b') return escape(bytes);
    EXPECT_TRUE(!std::iscntrl(static_cast<unsigned char>(bytes.front())));
    if (std::exchange(column_is_start_, false)) {
      EXPECT_EQ(lines_[row_], "") << "written over what stood there";
    }
    lines_[row_] += bytes.front();
    return 1;
  }

  std::size_t escape(std::string_view bytes) {
    std::size_t end = 2;
    while (end < bytes.size() && std::isdigit(static_cast<unsigned char>(bytes[end])) != 0) ++end;
    const std::string number(bytes.substr(2, end - 2));
    switch (bytes[end]) {
      case 'A': {
        const auto up = static_cast<std::size_t>(std::stoi(number));
        EXPECT_LE(up, row_);
        row_ -= std::min(up, row_);
        break;
      }
      case 'J':
        lines_.resize(row_ + 1);
        lines_[row_].clear();
        break;
      case 'm':
        break;
      default:
        ADD_FAILURE() << "a sequence that this terminal does not know: " << bytes.substr(1, end);
    }
    return end + 1;
  }

  std::vector<std::string> lines_ = {""};
  std::size_t row_ = 0;
  bool column_is_start_ = true;
};

BranchUpdate token(std::string id, std::string label, std::string text, std::int64_t tokens) {
  return {Kind::kToken, std::move(id), std::move(label), std::move(text), tokens};
}

BranchUpdate event(Kind kind, std::string id, std::string label, std::int64_t tokens = 0) {
  return {kind, std::move(id), std::move(label), "", tokens};
}

TEST(LiveView, ShowsABlockWhileItRunsAndFoldsItAtTheJoin) {
  LiveView view({60, 20}, /*colors=*/false);
  Screen screen;
  view.add(token("", "", "<Think>\nplan</Goal>", 4));
  screen.write(view.frame());
  EXPECT_EQ(screen.text(), "<Think>\nplan</Goal>\n");
  EXPECT_EQ(view.frame(), "");  // nothing new

  view.add(event(Kind::kFork, "1.1", "1"));
  view.add(event(Kind::kFork, "1.2", "2"));
  view.add(token("1.1", "1", "<Path>\n1: one", 5));
  screen.write(view.frame());
  EXPECT_EQ(screen.text(),
            "<Think>\nplan</Goal>\n"
            "  ▸ 1.1  1:    5 tokens  one\n"
            "  ▸ 1.2  2:    0 tokens  \n\n");
  view.add(token("1.2", "2", "<Path>\n2: two\nmore", 7));
  view.add(token("1.2", "2", "\n</Path>\n", 9));
  view.add(event(Kind::kEnd, "1.2", "2", 9));
  screen.write(view.frame());
  EXPECT_EQ(screen.text(),
            "<Think>\nplan</Goal>\n"
            "  ▸ 1.1  1:    5 tokens  one\n"
            "  ✓ 1.2  2:    9 tokens  two more\n\n");
  view.add(event(Kind::kEnd, "1.1", "1", 6));
  view.add(event(Kind::kJoin, "", ""));
  view.add(token("", "", "<Conclusion>\nboth", 8));
  view.finish();
  screen.write(view.frame());
  EXPECT_EQ(screen.text(),
            "<Think>\nplan</Goal>\n"
            "  ✓ 1.1  1:    6 tokens  one\n"
            "  ✓ 1.2  2:    9 tokens  two more\n"
            "<Conclusion>\nboth\n\n");
}

TEST(LiveView, IndentsNestedPathsUnderTheirParent) {
  LiveView view({70, 20}, false);
  Screen screen;
  for (const char* id : {"1.1", "1.2"}) view.add(event(Kind::kFork, id, std::string(1, id[2])));
  view.add(event(Kind::kFork, "1.1/1.1", "1.1"));
  view.add(event(Kind::kFork, "1.1/1.2", "1.2"));
  screen.write(view.frame());
  EXPECT_EQ(screen.text(),
            "  ┬ 1.1  1:            0 tokens  \n"
            "  ▸   1.1/1.1  1.1:    0 tokens  \n"
            "  ▸   1.1/1.2  1.2:    0 tokens  \n"
            "  ▸ 1.2  2:            0 tokens  \n\n");
  view.add(event(Kind::kJoin, "1.1", "1"));
  screen.write(view.frame());
  EXPECT_EQ(screen.lines().front().substr(0, 5), "  ▸");
}

TEST(LiveView, TextWithEscapeSequencesIsShownNotObeyed) {
  LiveView view({60, 20}, false);
  view.add(token("", "", "\x1b[2Jhello", 1));
  view.add(event(Kind::kFork, "1.1", "\x1b]0;title\x07"));
  view.add(token("1.1", "\x1b]0;title\x07",
                 "\x1b[H\xC2\x9B"
                 "1m",
                 2));
  const std::string frame = view.frame();
  EXPECT_EQ(frame.find('\x1b'), std::string::npos) << frame;
  EXPECT_EQ(frame.find('\x07'), std::string::npos);
  EXPECT_NE(frame.find("\\x1b[2Jhello"), std::string::npos);
}

TEST(LiveView, DimsTagsAlone) {
  LiveView view({60, 20}, /*colors=*/true);
  view.add(token("", "", "<Think>a < b <x y></Think>", 4));
  EXPECT_EQ(view.frame(), "\x1b[2m<Think>\x1b[0ma < b <x y>\x1b[2m</Think>\x1b[0m");
}

TEST(LiveView, AnAnswerThatStopsInsideABlockLeavesItsLines) {
  LiveView view({60, 20}, false);
  Screen screen;
  view.add(event(Kind::kFork, "1.1", "1"));
  screen.write(view.frame());
  view.finish();
  screen.write(view.frame());
  EXPECT_EQ(screen.text(), "  ▸ 1.1  1:    0 tokens  \n\n");
}

// Whatever events come in whatever order: lines fit, the region fits, and what the root wrote stands there in order.
TEST(LiveView, RandomEventsOnRandomTerminals) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::vector<std::string> texts = {"a",       "word ",      "漢字", "\n",        "\x1b[A",
                                          "</Path>", "<Path>\n1:", "é",    "1234567890"};
  for (int round = 0; round < 300; ++round) {
    const TerminalSize size{20 + static_cast<int>(random() % 80), 4 + static_cast<int>(random() % 20)};
    LiveView view(size, random() % 2 == 0);
    Screen screen;
    std::string rooted;
    for (int step = 0; step < 200; ++step) {
      std::string id = concat(1 + random() % 2, ".", 1 + random() % 30);
      if (random() % 4 == 0) id += concat("/1.", 1 + random() % 3);
      switch (random() % 8) {
        case 0:
          view.add(event(Kind::kJoin, "", ""));
          break;
        case 1:
          rooted += concat("root", step, ".\n");
          view.add(token("", "", concat("root", step, ".\n"), step));
          break;
        case 2:
          view.add(event(Kind::kEnd, id, "7", step));
          break;
        case 3:
          view.add(event(Kind::kFork, id, "7"));
          break;
        case 4:
          view.add(event(Kind::kJoin, id, "7"));
          break;
        default:
          view.add(token(id, "7", texts[random() % texts.size()], step));
      }
      if (random() % 3 == 0) {
        screen.write(view.frame());
        for (const std::string& line : screen.lines()) ASSERT_LT(columns(line), size.columns) << line;
      }
    }
    view.finish();
    screen.write(view.frame());
    std::string seen;
    for (const std::string& line : screen.lines()) {
      if (line.substr(0, 4) == "root") seen += line + "\n";
    }
    ASSERT_EQ(seen, rooted);
    ASSERT_EQ(screen.lines().back(), "");
  }
}

TEST(LiveView, ARegionHigherThanTheTerminalShowsWhatRuns) {
  LiveView view({60, 10}, false);
  Screen screen;
  for (int path = 1; path <= 40; ++path) view.add(event(Kind::kFork, concat("1.", path), concat(path)));
  for (int path = 1; path <= 20; ++path) view.add(event(Kind::kEnd, concat("1.", path), concat(path), 3));
  screen.write(view.frame());
  ASSERT_EQ(screen.lines().size(), 9U);  // eight lines and the cursor's
  EXPECT_NE(screen.lines()[0].find("▸ 1.21"), std::string::npos) << screen.lines()[0];
  EXPECT_EQ(screen.lines()[7], "  … 33 more paths; 20 of 40 still write");
  view.add(event(Kind::kJoin, "", ""));
  screen.write(view.frame());
  EXPECT_EQ(screen.lines().size(), 41U);  // at the join all of them
}

TEST(LiveView, BadAddressesAreLeftOut) {
  LiveView view({60, 10}, false);
  for (const char* id : {"1", "1.", ".1", "1/1", "1.1/", "1.1/2", "x", "1.-1", "99999999999.1"}) {
    view.add(token(id, "1", "text", 1));
  }
  EXPECT_EQ(view.frame(), "");
}

}  // namespace
}  // namespace multiverse
