#include "multiverse/cache/page_pool.h"

#include <gtest/gtest.h>

#include <random>

#include "multiverse/cache/page_hash.h"

namespace multiverse {
namespace {

PageKey key_of(std::int32_t content) {
  const std::int32_t tokens[] = {content};
  return extend_key(root_key("", 0), tokens, 0);
}

TEST(PagePool, GivesEveryPageOnceAndTakesItBack) {
  PagePool pool(3);
  std::vector<PageRef> held;
  for (int i = 0; i < 3; ++i) held.push_back(*pool.allocate());
  EXPECT_FALSE(pool.allocate().has_value());
  pool.check_integrity();
  held.pop_back();
  EXPECT_EQ(pool.available(), 1);
  EXPECT_TRUE(pool.allocate().has_value());
  pool.check_integrity();
}

TEST(PagePool, FindsPublishedContentUntilItIsEvicted) {
  PagePool pool(2);
  std::int32_t first = -1;
  {
    const PageRef page = *pool.allocate();
    first = page.id();
    pool.publish(page, key_of(1));
  }
  EXPECT_EQ(pool.counts().cached, 1);
  {
    const std::optional<PageRef> found = pool.find(key_of(1));
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->id(), first);
    EXPECT_EQ(pool.counts().cached, 0);
  }
  EXPECT_FALSE(pool.find(key_of(2)).has_value());
  const PageRef a = *pool.allocate();
  const PageRef b = *pool.allocate();  // takes the cached one, after the free one
  EXPECT_EQ(b.id(), first);
  EXPECT_FALSE(pool.find(key_of(1)).has_value());
  EXPECT_EQ(pool.evictions(), 1);
  pool.check_integrity();
}

TEST(PagePool, EvictsTheLeastRecentlyReleasedFirst) {
  PagePool pool(3);
  std::vector<PageRef> pages;
  for (int i = 0; i < 3; ++i) {
    pages.push_back(*pool.allocate());
    pool.publish(pages.back(), key_of(i));
  }
  // A run of pages is released tail first: 2, 1, 0. So the tail goes first.
  while (!pages.empty()) pages.pop_back();
  const PageRef first = *pool.allocate();
  EXPECT_FALSE(pool.find(key_of(2)).has_value());
  const PageRef second = *pool.allocate();
  EXPECT_FALSE(pool.find(key_of(1)).has_value());
  EXPECT_TRUE(pool.find(key_of(0)).has_value());
}

TEST(PagePool, SharesAPageAmongItsReferences) {
  PagePool pool(2);
  PageRef page = *pool.allocate();
  {
    const PageRef copy = page;
    EXPECT_EQ(pool.counts().shared, 1);
  }
  EXPECT_EQ(pool.counts().shared, 0);
  EXPECT_EQ(pool.counts().referenced, 1);
  page = PageRef();
  EXPECT_EQ(pool.counts().free, 2);
}

TEST(PagePool, ForgetsAllContentAtOnce) {
  PagePool pool(2);
  const PageRef held = *pool.allocate();
  pool.publish(held, key_of(1));
  { pool.publish(*pool.allocate(), key_of(2)); }
  pool.forget_all();
  EXPECT_FALSE(pool.find(key_of(1)).has_value());
  EXPECT_FALSE(pool.find(key_of(2)).has_value());
  EXPECT_EQ(pool.counts().free, 1);
  pool.check_integrity();
}

TEST(PagePool, ConservesPagesUnderRandomOperations) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  PagePool pool(20);
  std::vector<PageRef> held;
  for (int step = 0; step < 5000; ++step) {
    const auto pick = held.empty() ? 0 : random() % held.size();
    switch (random() % 5) {
      case 0:
      case 1:
        if (std::optional<PageRef> page = pool.allocate()) held.push_back(std::move(*page));
        break;
      case 2:
        if (!held.empty()) held.erase(held.begin() + static_cast<std::ptrdiff_t>(pick));
        break;
      case 3:
        if (!held.empty()) pool.publish(held[pick], key_of(static_cast<std::int32_t>(random() % 40)));
        break;
      case 4:
        if (std::optional<PageRef> page = pool.find(key_of(static_cast<std::int32_t>(random() % 40)))) {
          held.push_back(std::move(*page));
        }
        break;
    }
    pool.check_integrity();
  }
}

TEST(PageHash, AChainDoesNotDependOnHowItIsCut) {
  std::vector<std::int32_t> tokens(48);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * 7);
  const std::span<const std::int32_t> all = tokens;
  PageKey whole = root_key("tenant", 3);
  for (int page = 0; page < 3; ++page)
    whole = extend_key(whole, all.subspan(static_cast<std::size_t>(page) * 16, 16), page * 16);
  EXPECT_EQ(whole, extend_key(extend_key(extend_key(root_key("tenant", 3), all.first(16), 0), all.subspan(16, 16), 16),
                              all.last(16), 32));
  EXPECT_NE(root_key("tenant", 3), root_key("other", 3));
  EXPECT_NE(root_key("tenant", 3), root_key("tenant", 4));
  EXPECT_NE(extend_key(whole, all.first(16), 48), extend_key(whole, all.first(16), 49));
  EXPECT_NE(fork_key(whole), whole);
  const PageKey paths[] = {key_of(1), key_of(2)};
  const PageKey swapped[] = {key_of(2), key_of(1)};
  EXPECT_NE(join_key(whole, paths), join_key(whole, swapped));
}

TEST(PageList, HoldsWhatIsPutIntoItAndLetsItsTailGoFirst) {
  PagePool pool(4);
  std::vector<std::int32_t> ids;
  {
    PageList list;
    for (std::int32_t i = 0; i < 3; ++i) {
      PageRef page = *pool.allocate();
      pool.publish(page, key_of(i));
      ids.push_back(page.id());
      list.push_back(std::move(page));
    }
    EXPECT_TRUE(std::equal(ids.begin(), ids.end(), list.ids().begin(), list.ids().end()));
    PageList moved = std::move(list);
    EXPECT_TRUE(list.empty());  // NOLINT(bugprone-use-after-move): that is what is tested
    EXPECT_EQ(moved.size(), 3U);
    EXPECT_EQ(pool.counts().referenced, 3);
    pool.check_integrity();
  }
  EXPECT_EQ(pool.counts().cached, 3);
  // The free page goes first, then what was let go first.
  std::vector<PageRef> held;
  for (int i = 0; i < 4; ++i) held.push_back(*pool.allocate());
  EXPECT_EQ(held[1].id(), ids[2]);
  EXPECT_EQ(held[2].id(), ids[1]);
  EXPECT_EQ(held[3].id(), ids[0]);
  pool.check_integrity();
}

}  // namespace
}  // namespace multiverse
