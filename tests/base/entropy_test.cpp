#include "multiverse/base/entropy.h"

#include <gtest/gtest.h>

#include <set>

namespace multiverse {
namespace {

TEST(Entropy, IdsAreHexadecimalAndDiffer) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(random_id());
  EXPECT_EQ(ids.size(), 1000U);
  for (const std::string& id : ids) {
    EXPECT_EQ(id.size(), 32U);
    EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos) << id;
  }
}

// Each of the 64 bits is set about half the time: 200 draws without it, or only with it, would take 2^199 tries.
TEST(Entropy, EveryBitIsDrawn) {
  std::uint64_t any = 0, all = ~std::uint64_t{0};
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t bits = random_bits();
    any |= bits;
    all &= bits;
  }
  EXPECT_EQ(any, ~std::uint64_t{0});
  EXPECT_EQ(all, 0U);
}

}  // namespace
}  // namespace multiverse
