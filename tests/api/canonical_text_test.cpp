#include "multiverse/api/canonical_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "support/fake_tokenizer.h"

namespace multiverse {
namespace {

using testing::fake_model;

// A tree of what branches write: pieces of tokens, and forks between them.
struct Tree {
  std::int32_t handle = 0;
  BranchAddress address;
  struct Part {
    std::vector<TokenId> tokens;  // a run, or
    std::vector<Tree> children;   // a fork
  };
  std::vector<Part> parts;
};

// Alphabets that make stop strings and split characters likely.
std::vector<TokenId> random_run(std::mt19937_64& random) {
  static const std::vector<std::string> kBits{"a", "b", "ab", "é", "漢", "🙂", "\n", "c", "\xE6", "\xBC"};
  std::vector<TokenId> tokens;
  for (std::uint64_t count = random() % 6; count > 0; --count) {
    if (random() % 12 == 0) {
      tokens.push_back(random() % 2 == 0 ? testing::kPath : testing::kStartOfTurn);  // shown, hidden
    } else {
      for (const TokenId token : testing::bytes_of(kBits[random() % kBits.size()])) tokens.push_back(token);
    }
  }
  return tokens;
}

void grow(Tree& tree, std::mt19937_64& random, int depth, std::int32_t& handles) {
  std::int32_t block = 0;
  tree.parts.push_back({random_run(random), {}});
  while (depth < 3 && random() % 3 == 0) {
    Tree::Part fork;
    ++block;
    const auto width = static_cast<std::int32_t>(1 + random() % 4);
    for (std::int32_t path = 1; path <= width; ++path) {
      Tree child;
      child.handle = ++handles;
      child.address = tree.address;
      child.address.insert(child.address.end(), {block, path});
      fork.children.push_back(std::move(child));
    }
    for (Tree& child : fork.children) grow(child, random, depth + 1, handles);
    tree.parts.push_back(std::move(fork));
    tree.parts.push_back({random_run(random), {}});
  }
}

// The obvious way: runs decoded one by one, in canonical order.
std::string canonical(const Tree& tree, const ServedModel& model) {
  std::string text;
  for (const Tree::Part& part : tree.parts) {
    for (const Tree& child : part.children) text += canonical(child, model);
    IncrementalDetokenizer detokenizer;
    for (const TokenId token : part.tokens) text += detokenizer.append(model.visible_bytes(token));
    text += detokenizer.finish();
  }
  return text;
}

std::string cut_at_first(std::string text, const std::vector<std::string>& stops) {
  std::size_t first = text.size();
  for (const std::string& stop : stops) first = std::min(first, text.find(stop));
  return text.substr(0, first);
}

void list_canonically(const Tree& tree, std::vector<std::int32_t>& order) {
  order.push_back(tree.handle);
  for (const Tree::Part& part : tree.parts) {
    for (const Tree& child : part.children) list_canonically(child, order);
  }
}

// Plays a tree's events in a random order that an engine could produce, and honours cuts as one does.
class Player {
 public:
  Player(const Tree& root, std::mt19937_64& random, CanonicalText& text) : random_(random), text_(text) {
    start(root, nullptr);
  }

  std::string play() {
    std::string out;
    while (!open_.empty()) {
      const std::size_t pick = random_() % open_.size();
      step(*open_[pick]);
      const auto delta = text_.take();
      out += delta.text;
      for (const CanonicalToken& token : delta.tokens) tokens.push_back(token);
      for (BranchNews& one : text_.take_news()) news.push_back(std::move(one));
      while (const auto cut = text_.take_cut()) cancel_from(*cut);
      open_.erase(std::remove_if(open_.begin(), open_.end(), [](const auto& writer) { return writer->gone; }),
                  open_.end());
    }
    text_.finish();
    const auto delta = text_.take();
    for (const CanonicalToken& token : delta.tokens) tokens.push_back(token);
    for (BranchNews& one : text_.take_news()) news.push_back(std::move(one));
    return out + delta.text;
  }

  int events = 0;
  std::vector<CanonicalToken> tokens;
  std::vector<BranchNews> news;

 private:
  struct Writer {
    const Tree* tree;
    Writer* parent;
    std::size_t part = 0, token = 0;
    std::size_t running_children = 0;
    bool gone = false;
  };

  void start(const Tree& tree, Writer* parent) {
    all_.push_back(std::make_unique<Writer>(Writer{&tree, parent}));
    open_.push_back(all_.back().get());
    by_handle_[tree.handle] = all_.back().get();
  }

  void step(Writer& writer) {
    if (writer.running_children > 0) return;
    ++events;
    if (writer.part == writer.tree->parts.size()) return end(writer);
    const Tree::Part& part = writer.tree->parts[writer.part];
    if (!part.children.empty()) {
      ForkEvent fork;
      fork.parent = writer.tree->handle;
      for (const Tree& child : part.children) fork.children.push_back({child.handle, child.address, "1"});
      text_.add(fork);
      writer.running_children = part.children.size();
      ++writer.part;
      Writer* parent = &writer;
      for (const Tree& child : part.children) start(child, parent);
      return;
    }
    if (writer.token == part.tokens.size()) {
      writer.token = 0;
      ++writer.part;
      return;
    }
    TokenEvent event;
    event.branch = writer.tree->handle;
    event.token = part.tokens[writer.token++];
    text_.add(event);
  }

  void end(Writer& writer) {
    writer.gone = true;
    if (writer.parent == nullptr) return;
    text_.add(BranchEndEvent{0, writer.tree->handle});
    if (--writer.parent->running_children == 0) text_.add(JoinEvent{0, writer.parent->tree->handle});
  }

  // The branch and all that follows it in canonical order; its ancestors write no more, but wait for what precedes.
  void cancel_from(std::int32_t handle) {
    std::vector<std::int32_t> order;
    list_canonically(*all_.front()->tree, order);
    const auto from = std::find(order.begin(), order.end(), handle);
    for (auto cancelled = from; cancelled != order.end(); ++cancelled) drop(*cancelled);
    for (Writer* above = by_handle_[handle]->parent; above != nullptr; above = above->parent) above->gone = true;
  }
  void drop(std::int32_t handle) {
    const auto found = by_handle_.find(handle);
    if (found != by_handle_.end()) found->second->gone = true;
  }

  std::mt19937_64& random_;
  CanonicalText& text_;
  std::vector<std::unique_ptr<Writer>> all_;
  std::vector<Writer*> open_;
  std::map<std::int32_t, Writer*> by_handle_;
};

bool is_utf8(std::string_view text) {
  IncrementalDetokenizer detokenizer;
  return detokenizer.append(text) == text;
}

class CanonicalTextProperty : public ::testing::Test {
 protected:
  CanonicalTextProperty() : seed_(std::random_device{}()), random_(seed_), model_(fake_model()) {
    std::printf("seed %u\n", seed_);
  }
  Tree random_tree() {
    Tree root;
    std::int32_t handles = 0;
    grow(root, random_, 0, handles);
    return root;
  }
  CanonicalText fresh(std::vector<std::string> stops = {}) {
    return CanonicalText([this](TokenId token) { return model_->visible_bytes(token); }, std::move(stops));
  }

  unsigned seed_;
  std::mt19937_64 random_;
  std::shared_ptr<ServedModel> model_;
};

TEST_F(CanonicalTextProperty, AnyInterleavingGivesTheCanonicalText) {
  for (int round = 0; round < 2000; ++round) {
    const Tree tree = random_tree();
    CanonicalText text = fresh();
    text.want_news();
    Player player(tree, random_, text);
    const std::string out = player.play();
    ASSERT_EQ(out, canonical(tree, *model_)) << "round " << round;
    ASSERT_TRUE(is_utf8(out));
    ASSERT_FALSE(text.stopped());

    // The branch news, put together by address, hold the same text.
    std::map<std::string, std::string> by_branch;
    std::size_t length = 0;
    for (const BranchNews& news : player.news) {
      ASSERT_TRUE(is_utf8(news.text));
      by_branch[news.id] += news.text;
      length += news.text.size();
    }
    ASSERT_EQ(length, out.size());
    std::vector<TokenId> ids;
    for (const CanonicalToken& token : player.tokens) ids.push_back(token.token);
    std::size_t expected = 0;
    const std::function<void(const Tree&)> count = [&](const Tree& branch) {
      std::string own;
      for (const Tree::Part& part : branch.parts) {
        for (const Tree& child : part.children) count(child);
        for (const TokenId token : part.tokens) {
          (void)token;
          ++expected;
        }
        Tree run;
        run.parts.push_back({part.tokens, {}});
        own += canonical(run, *model_);
      }
      ASSERT_EQ(by_branch[to_string(branch.address)], own);
    };
    count(tree);
    ASSERT_EQ(ids.size(), expected);
  }
}

TEST_F(CanonicalTextProperty, AnyInterleavingIsCutAtTheFirstStopString) {
  int matches = 0, saved = 0;
  for (int round = 0; round < 4000; ++round) {
    const Tree tree = random_tree();
    const std::string whole = canonical(tree, *model_);
    // Stop strings from anywhere in the text, across borders and inside paths that are held; some nowhere.
    std::vector<std::string> stops;
    for (std::uint64_t count = 1 + random_() % 3; count > 0; --count) {
      const std::size_t at = whole.empty() ? 0 : random_() % whole.size();
      std::string stop = whole.substr(at, 1 + random_() % 7);
      if (random_() % 6 == 0) stop += "never";
      if (!stop.empty()) stops.push_back(std::move(stop));
    }
    const std::string expected = cut_at_first(whole, stops);
    CanonicalText text = fresh(stops);
    Player player(tree, random_, text);
    const std::string out = player.play();
    ASSERT_EQ(out, expected) << "round " << round << " of " << whole;
    ASSERT_EQ(text.stopped(), expected.size() < whole.size());
    matches += text.stopped() ? 1 : 0;

    // The tokens are those whose text starts before the cut.
    std::size_t code_points = 0;
    for (const char c : out) code_points += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U ? 1 : 0;
    for (const CanonicalToken& token : player.tokens) {
      ASSERT_TRUE(!text.stopped() || token.text_offset <= code_points);
    }

    CanonicalText unhurried = fresh(stops);
    Player without_cuts(tree, random_, unhurried);
    ASSERT_EQ(without_cuts.play(), expected);
    ASSERT_EQ(without_cuts.tokens.size(), player.tokens.size());
    saved += player.events < without_cuts.events ? 1 : 0;
  }
  std::printf("%d of 4000 stopped, %d with fewer events\n", matches, saved);
  EXPECT_GT(matches, 1000);
}

TokenEvent token(std::int32_t branch, TokenId id) {
  TokenEvent event;
  event.branch = branch;
  event.token = id;
  return event;
}

TEST(CanonicalText, LaterPathsWaitAndTheFirstIsLive) {
  const auto model = fake_model();
  CanonicalText text([&](TokenId id) { return model->visible_bytes(id); }, {});
  text.add(token(0, 'r'));
  text.add(ForkEvent{0, 0, {{1, {1, 1}, "1"}, {2, {1, 2}, "2"}}});
  text.add(token(2, 'b'));
  text.add(BranchEndEvent{0, 2});
  EXPECT_EQ(text.take().text, "r");
  text.add(token(1, 'a'));
  EXPECT_EQ(text.take().text, "a");
  text.add(BranchEndEvent{0, 1});
  EXPECT_EQ(text.take().text, "b");
  text.add(JoinEvent{0, 0});
  text.add(token(0, 'z'));
  EXPECT_EQ(text.take().text, "z");
}

TEST(CanonicalText, AMatchInAHeldPathIsToldAtOnceAndAnEarlierOneWins) {
  const auto model = fake_model();
  CanonicalText text([&](TokenId id) { return model->visible_bytes(id); }, {"stop", "ok"});
  text.add(ForkEvent{0, 0, {{1, {1, 1}, "1"}, {2, {1, 2}, "2"}, {3, {1, 3}, "3"}}});
  for (const char c : std::string("xstop")) text.add(token(2, c));
  EXPECT_EQ(text.take_cut(), 2);
  EXPECT_EQ(text.take_cut(), std::nullopt);
  text.add(BranchEndEvent{0, 2});
  for (const char c : std::string("1ok2")) text.add(token(1, c));
  EXPECT_EQ(text.take_cut(), 1);
  EXPECT_EQ(text.take().text, "1");
  EXPECT_TRUE(text.stopped());
  text.finish();
  EXPECT_TRUE(text.take().empty());
}

TEST(CanonicalText, AnEndTokenInsideAPathEndsTheReplyThere) {
  const auto model = fake_model();
  CanonicalText text([&](TokenId id) { return model->visible_bytes(id); }, {});
  text.add(ForkEvent{0, 0, {{1, {1, 1}, "1"}, {2, {1, 2}, "2"}}});
  text.add(token(2, 'b'));
  text.add(token(1, 'a'));
  TokenEvent end = token(1, testing::kEndOfTurn);
  end.end_of_text = true;
  text.add(end);
  text.finish();
  const auto delta = text.take();
  EXPECT_EQ(delta.text, "a");
  ASSERT_EQ(delta.tokens.size(), 2U);
  EXPECT_EQ(delta.tokens[1].token, testing::kEndOfTurn);
}

TEST(CanonicalTextDeathTest, AnEventOfAnUnknownBranchIsTheEnginesMistake) {
  const auto model = fake_model();
  CanonicalText text([&](TokenId id) { return model->visible_bytes(id); }, {});
  EXPECT_DEATH(text.add(token(7, 'a')), "branch 7, which no fork opened");
}

TEST(StopMatcher, TheMatchThatStartsFirstWinsHoweverTheTextIsCut) {
  StopMatcher matcher({"bcd", "c"});
  EXPECT_EQ(matcher.append("ab"), "a");
  EXPECT_EQ(matcher.append("c"), "");  // "c" matches, but "bcd" may have started before it
  EXPECT_EQ(matcher.append("d"), "");
  EXPECT_TRUE(matcher.matched());

  StopMatcher ends({"bcd", "c"});
  EXPECT_EQ(ends.append("abc"), "a");
  EXPECT_EQ(ends.finish(), "b");
  EXPECT_TRUE(ends.matched());
}

TEST(StopMatcher, KnowsWhenAStopStringStandsInsideAnother) {
  EXPECT_TRUE(any_stop_inside_another({"abc", "b"}));
  EXPECT_TRUE(any_stop_inside_another({"abc", "a"}));
  EXPECT_FALSE(any_stop_inside_another({"abc", "c"}));
  EXPECT_FALSE(any_stop_inside_another({"abc", "abd"}));
}

}  // namespace
}  // namespace multiverse
