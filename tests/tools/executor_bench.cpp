// Times executor steps of fixed shapes, engine and server left out.
//   executor_bench MODEL_DIR [--dtype D] [--threads N] [--random] [--repeat N]
// Prints the median and the least time of each shape, and the median CPU time of all threads (spinning included).
// MODEL_DIR needs only config.json with --random.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <string>

#include "multiverse/model/torch_executor.h"

namespace {

using multiverse::kPageTokens;

// Hands out pages and builds plans; every shape starts from an empty pool.
class PlanMaker {
 public:
  explicit PlanMaker(const multiverse::ExecutorInfo& info) : info_(info) {}

  std::vector<multiverse::PageId> run(std::int32_t tokens) {
    std::vector<multiverse::PageId> pages;
    for (std::int32_t i = 0; i < tokens; i += kPageTokens) pages.push_back(next_page_++ % info_.num_pages);
    return pages;
  }

  // Rows [first, first + count) of a run, seeing `shared` (fully) and themselves.
  void add(const std::vector<multiverse::PageId>& shared, std::int32_t shared_tokens,
           const std::vector<multiverse::PageId>& own, std::int32_t first, std::int32_t count, bool sample_all) {
    const auto begin = static_cast<std::int32_t>(plan.rows.size());
    for (std::int32_t i = first; i < first + count; ++i) {
      const auto row = static_cast<std::int32_t>(plan.rows.size());
      plan.rows.push_back({(i * 37 + begin) % info_.vocab_size, shared_tokens + i,
                           own[static_cast<std::size_t>(i / kPageTokens)], i % kPageTokens});
      if (sample_all || i + 1 == first + count) {
        multiverse::SampleRequest sample;
        sample.row = row;
        sample.params = &params_;
        sample.key = {1, static_cast<std::uint64_t>(begin), static_cast<std::uint32_t>(i)};
        plan.samples.push_back(sample);
      }
    }
    const auto end = static_cast<std::int32_t>(plan.rows.size());
    if (shared_tokens > 0) {
      // One item for all rows of the plan so far that share the run: the caller adds sharers one after another.
      if (!plan.items.empty() && plan.items.front().first_page == 0 && plan.items.front().num_tokens == shared_tokens) {
        plan.items.front().row_end = end;
      } else {
        item(shared, shared_tokens, begin, end, false);
      }
    }
    item(own, first + count, begin, end, true);
  }

  multiverse::StepPlan plan;

 private:
  void item(const std::vector<multiverse::PageId>& pages, std::int32_t tokens, std::int32_t begin, std::int32_t end,
            bool causal) {
    plan.items.push_back({static_cast<std::int32_t>(plan.pages.size()), tokens, begin, end, causal});
    plan.pages.insert(plan.pages.end(), pages.begin(), pages.end());
  }

  const multiverse::ExecutorInfo& info_;
  multiverse::PageId next_page_ = 0;
  multiverse::SamplingParams params_;
};

// CPU time of the process, all threads: what other load on the machine changes least.
double cpu_ms() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return 1e3 * static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_nsec);
}

double measure(multiverse::Executor& executor, const multiverse::StepPlan& plan, int repeat, const std::string& name) {
  multiverse::StepResult result;
  std::vector<double> times, cpu_times;
  for (int i = 0; i < repeat + 3; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double cpu_start = cpu_ms();
    executor.execute(plan, result);
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    if (i < 3) continue;
    times.push_back(time.count());
    cpu_times.push_back(cpu_ms() - cpu_start);
  }
  std::sort(times.begin(), times.end());
  std::sort(cpu_times.begin(), cpu_times.end());
  const double median = times[times.size() / 2];
  std::printf("%-44s rows %4zu  median %8.3f ms  least %8.3f ms  cpu %8.3f ms  %9.0f rows/s\n", name.c_str(),
              plan.rows.size(), median, times.front(), cpu_times[cpu_times.size() / 2],
              1e3 * static_cast<double>(plan.rows.size()) / median);
  return cpu_times[cpu_times.size() / 2];
}

long resident_mb() {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;) {
    if (word == "VmRSS:") {
      long kib = 0;
      file >> kib;
      return kib / 1024;
    }
  }
  return 0;
}

void run_shapes(multiverse::Executor& executor, int repeat) {
  const auto decode = [&](int rows, std::int32_t shared, std::int32_t own) {
    PlanMaker maker(executor.info());
    const auto prefix = maker.run(shared);
    for (int i = 0; i < rows; ++i) maker.add(prefix, shared, maker.run(own), own - 1, 1, false);
    return measure(executor, maker.plan, repeat,
                   multiverse::concat("decode, ", shared, " shared + ", own, " own tokens"));
  };
  const auto prefill = [&](int rows, bool sample_all) {
    PlanMaker maker(executor.info());
    maker.add({}, 0, maker.run(rows), 0, rows, sample_all);
    return measure(executor, maker.plan, std::max(3, repeat / 20),
                   sample_all ? "prefill, all rows sampled" : "prefill");
  };
  const double one = decode(1, 0, 512);
  for (const int rows : {2, 4, 8, 16, 32, 64}) {
    const double many = decode(rows, 0, 512);
    std::printf("    %d rows: %.2f times one row\n", rows, many / one);
  }
  const double long_one = decode(1, 4000, 16);
  const double long_eight = decode(8, 4000, 16);
  std::printf("    8 paths over 4000 shared tokens: %.2f times one row over the same\n", long_eight / long_one);
  prefill(128, false);
  prefill(256, false);
  prefill(512, false);
  prefill(512, true);
}

}  // namespace

int main(int argc, char** argv) {
  multiverse::TorchExecutorOptions options;
  int repeat = 200;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (argument == "--dtype") {
      options.dtype = value();
    } else if (argument == "--threads") {
      options.threads = std::stoi(value());
    } else if (argument == "--random") {
      options.random_weights = true;
    } else if (argument == "--repeat") {
      repeat = std::max(1, std::stoi(value()));
    } else {
      options.model_dir = argument;
    }
  }
  auto made = multiverse::make_torch_executor(options);
  if (!made.ok()) {
    std::cerr << made.error().message << '\n';
    return 1;
  }
  std::printf("resident after loading: %ld MB (weights %ld MB)\n", resident_mb(),
              static_cast<long>(made.value()->info().weight_bytes / 1'000'000));
  run_shapes(*made.value(), repeat);
  std::printf("resident at the end: %ld MB\n", resident_mb());
  return 0;
}
