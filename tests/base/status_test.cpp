#include "multiverse/base/status.h"

#include <gtest/gtest.h>

namespace multiverse {
namespace {

TEST(Result, HoldsAValueOrAnError) {
  const Result<int> seven = 7;
  ASSERT_TRUE(seven.ok());
  EXPECT_EQ(seven.value(), 7);

  const Result<int> wrong = invalid_argument("temperature is 3, at most 2 is allowed", "temperature");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().param, "temperature");
  EXPECT_EQ(wrong.error().code, ErrorCode::kInvalidArgument);
}

TEST(ResultDeathTest, ReadingTheWrongSideIsOurMistake) {
  const Result<int> wrong = invalid_argument("no such thing");
  EXPECT_DEATH((void)wrong.value(), "no such thing");
}

}  // namespace
}  // namespace multiverse
