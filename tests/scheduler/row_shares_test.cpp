#include "multiverse/scheduler/row_shares.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "tests/support/test_seed.h"

namespace multiverse::testing {
namespace {

using Shares = std::vector<std::int32_t>;

TEST(RowShares, SmallDemandsAreMetAndTheRestDividesWhatIsLeft) {
  EXPECT_EQ(equal_shares(Shares{1, 100, 2, 100}, 63, 0), (Shares{1, 30, 2, 30}));
  EXPECT_EQ(equal_shares(Shares{1, 1, 1}, 63, 0), (Shares{1, 1, 1}));
  EXPECT_EQ(equal_shares(Shares{}, 63, 0), Shares{});
  EXPECT_EQ(equal_shares(Shares{0, 0}, 63, 5), (Shares{0, 0}));
}

TEST(RowShares, TheRemainderGoesRound) {
  Shares sums(3);
  for (std::int64_t turn = 0; turn < 3; ++turn) {
    const Shares shares = equal_shares(Shares{9, 9, 9}, 7, turn);
    EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), 0), 7);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += shares[i];
  }
  EXPECT_EQ(sums, (Shares{7, 7, 7}));
}

TEST(RowShares, AreFairAndUseAllThereIs) {
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE("MULTIVERSE_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 10'000; ++round) {
    Shares demands(1 + random() % 12);
    for (std::int32_t& demand : demands) demand = static_cast<std::int32_t>(random() % (random() % 3 == 0 ? 200 : 4));
    const auto most = static_cast<std::int32_t>(random() % 300);
    const Shares shares = equal_shares(demands, most, static_cast<std::int64_t>(random() % 1000));
    const std::int32_t wanted = std::accumulate(demands.begin(), demands.end(), 0);
    ASSERT_EQ(std::accumulate(shares.begin(), shares.end(), 0), std::min(wanted, most));
    for (std::size_t i = 0; i < shares.size(); ++i) {
      ASSERT_LE(shares[i], demands[i]);
      for (std::size_t j = 0; j < shares.size() && shares[i] < demands[i]; ++j) ASSERT_LE(shares[j], shares[i] + 1);
    }
  }
}

TEST(RowShares, EveryPolicyStaysWithinTheBudget) {
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE("MULTIVERSE_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 5'000; ++round) {
    std::vector<RowDemand> demands(1 + random() % 8);
    for (RowDemand& demand : demands) {
      demand = {static_cast<std::int32_t>(random() % 100), static_cast<std::int32_t>(random() % 500),
                static_cast<std::int64_t>(random() % 1000)};
    }
    const auto rows = static_cast<std::int32_t>(1 + random() % 300);
    const StepBudget most{rows, static_cast<std::int32_t>(1 + random() % static_cast<std::uint64_t>(rows))};
    for (const RowSharing sharing :
         {RowSharing::kEqual, RowSharing::kOldestFirst, RowSharing::kByBranches, RowSharing::kLeastServed}) {
      std::vector<StepBudget> budgets;
      share_rows(demands, most, sharing, round, budgets);
      ASSERT_EQ(budgets.size(), demands.size());
      std::int32_t all_rows = 0, prefill = 0, wanted = 0;
      for (std::size_t i = 0; i < demands.size(); ++i) {
        ASSERT_LE(budgets[i].rows, demands[i].decode + demands[i].prefill);
        ASSERT_LE(budgets[i].prefill_rows, demands[i].prefill);
        all_rows += budgets[i].rows;
        prefill += budgets[i].prefill_rows;
        wanted += demands[i].decode + budgets[i].prefill_rows;
      }
      ASSERT_LE(prefill, most.prefill_rows);
      ASSERT_EQ(all_rows, std::min(wanted, most.rows)) << "rows are left though somebody could fill them";
    }
  }
}

TEST(RowShares, HalfOfThePrefillGoesToTheFirstPrompt) {
  std::vector<StepBudget> budgets;
  const std::vector<RowDemand> demands = {{1, 0, 0}, {0, 100'000, 0}, {0, 40, 0}, {0, 500, 0}};
  share_rows(demands, {512, 256}, RowSharing::kEqual, 0, budgets);
  EXPECT_EQ(budgets[0].rows, 1);
  EXPECT_EQ(budgets[1].prefill_rows, 128);
  EXPECT_EQ(budgets[2].prefill_rows, 40);
  EXPECT_EQ(budgets[3].prefill_rows, 88);
  share_rows(std::vector<RowDemand>{{0, 100'000, 0}, {0, 40, 0}}, {512, 256}, RowSharing::kEqual, 0, budgets);
  EXPECT_EQ(budgets[0].prefill_rows, 216);
}

}  // namespace
}  // namespace multiverse::testing
