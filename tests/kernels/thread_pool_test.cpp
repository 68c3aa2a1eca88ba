#include "multiverse/kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <numeric>

#include "multiverse/kernels/philox.h"

namespace multiverse::kernels {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (std::int64_t count = 0; count < 200; ++count) {
      std::vector<int> runs(static_cast<std::size_t>(count), 0);
      std::atomic<int> wrong_thread{0};
      pool.for_each(count, [&](std::int64_t task, int thread) {
        ++runs[static_cast<std::size_t>(task)];
        if (thread < 0 || thread >= threads) ++wrong_thread;
      });
      EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), 0), count);
      EXPECT_TRUE(std::all_of(runs.begin(), runs.end(), [](int n) { return n == 1; }));
      EXPECT_EQ(wrong_thread.load(), 0);
    }
  }
}

// Jobs follow one another so closely that workers still look at the one before.
TEST(ThreadPool, KeepsJobsApart) {
  ThreadPool pool(4);
  for (std::int64_t job = 0; job < 20'000; ++job) {
    std::atomic<std::int64_t> sum{0};
    const std::int64_t count = 2 + job % 7;
    pool.for_each(count, [&, job](std::int64_t task, int) { sum += task + job; });
    ASSERT_EQ(sum.load(), count * (count - 1) / 2 + count * job);
  }
}

TEST(ThreadPool, WakesAfterSleeping) {
  ThreadPool pool(3);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> done{0};
    pool.for_each(50, [&](std::int64_t, int) { ++done; });
    EXPECT_EQ(done.load(), 50);
  }
}

TEST(ThreadPool, SleepsWhenIdle) {
  ThreadPool pool(4);
  pool.for_each(8, [](std::int64_t, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const double cpu_seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(cpu_seconds, 0.1);  // three spinning workers would use up to 0.9
}

TEST(AvailableCpus, IsAtLeastOne) {
  EXPECT_GE(available_cpus(), 1);
}

// Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
TEST(Philox, MatchesKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (PhiloxCounter{0x6627E8D5U, 0xE169C58DU, 0xBC57AC4CU, 0x9B00DBD8U}));
  EXPECT_EQ(philox4x32({0xFFFFFFFFU, 0xFFFFFFFFU, 0xFFFFFFFFU, 0xFFFFFFFFU}, {0xFFFFFFFFU, 0xFFFFFFFFU}),
            (PhiloxCounter{0x408F276DU, 0x41C83B0EU, 0xA20BC7C6U, 0x6D5451FDU}));
  EXPECT_EQ(philox4x32({0x243F6A88U, 0x85A308D3U, 0x13198A2EU, 0x03707344U}, {0xA4093822U, 0x299F31D0U}),
            (PhiloxCounter{0xD16CFE09U, 0x94FDCCEBU, 0x5001E420U, 0x24126EA1U}));
}

}  // namespace
}  // namespace multiverse::kernels
