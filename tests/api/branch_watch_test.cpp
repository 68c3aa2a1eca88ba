#include "api/branch_watch.h"

#include <gtest/gtest.h>

namespace multiverse {
namespace {

using std::chrono::seconds;

TEST(BranchWatch, TellsWidthDepthWavesAndTheWaitForTheSlowestPath) {
  BranchWatch watch(/*max_running=*/2);
  BranchFacts facts;
  watch.add(ForkEvent{0, 0, {{1, {1, 1}, "1"}, {2, {1, 2}, "2"}, {3, {1, 3}, "3"}}}, facts);
  watch.add(ForkEvent{0, 2, {{4, {1, 2, 1, 1}, "2.1"}, {5, {1, 2, 1, 2}, "2.2"}}}, facts);
  ASSERT_EQ(facts.forks.size(), 2U);
  EXPECT_EQ(facts.forks[0].width, 3);
  EXPECT_EQ(facts.forks[0].depth, 1);
  EXPECT_EQ(facts.forks[0].waves, 2);
  EXPECT_EQ(facts.forks[1].width, 2);
  EXPECT_EQ(facts.forks[1].depth, 2);
  EXPECT_EQ(facts.forks[1].waves, 1);

  watch.add(BranchEndEvent{0, 1}, seconds(10));
  watch.add(BranchEndEvent{0, 5}, seconds(11));
  watch.add(BranchEndEvent{0, 4}, seconds(14));
  watch.add(JoinEvent{0, 2}, seconds(14), facts);
  watch.add(BranchEndEvent{0, 3}, seconds(15));
  watch.add(BranchEndEvent{0, 2}, seconds(17));
  watch.add(JoinEvent{0, 0}, seconds(17), facts);
  EXPECT_EQ(facts.join_waits, (std::vector<Nanoseconds>{seconds(3), seconds(7)}));
  // The root forks again: what was before counts no more.
  watch.add(ForkEvent{0, 0, {{6, {2, 1}, "1"}, {7, {2, 2}, "2"}}}, facts);
  watch.add(BranchEndEvent{0, 7}, seconds(20));
  watch.add(BranchEndEvent{0, 6}, seconds(20));
  watch.add(JoinEvent{0, 0}, seconds(20), facts);
  EXPECT_EQ(facts.join_waits.back(), seconds(0));
}

}  // namespace
}  // namespace multiverse
