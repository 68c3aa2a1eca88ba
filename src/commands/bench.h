// The benchmarks of `multiverse bench`. They print figures beside their floors and never fail for being slow.
#pragma once

#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "multiverse/base/check.h"
#include "multiverse/base/status.h"

namespace multiverse {

// What each of them does with its words: help, options, the run. The exit code: 2 for wrong options, 1 where `bench`
// (Status(const Options&)) could not run; `parse`: Result<Options>(args).
template <class Parse, class Bench>
int run_benchmark(std::string_view name, const char* help, std::span<const std::string_view> args, Parse parse,
                  Bench bench) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(help, stdout);
    return 0;
  }
  const auto fail = [name](const Error& error, int exit_code) {
    std::fputs(concat("multiverse bench ", name, ": ", error.message, "\n").c_str(), stderr);
    return exit_code;
  };
  const auto options = parse(args);
  if (!options.ok()) return fail(options.error(), 2);
  const Status done = bench(options.value());
  return done.ok() ? 0 : fail(done.error(), 1);
}

// An option's value: a number from 1 to `most`.
Result<std::size_t> count_option(std::string_view name, std::string_view value, std::size_t most);

int bench_constraint(std::span<const std::string_view> args);
int bench_decode(std::span<const std::string_view> args);
int bench_http(std::span<const std::string_view> args);
int bench_policies(std::span<const std::string_view> args);
int bench_prefill(std::span<const std::string_view> args);
int bench_request(std::span<const std::string_view> args);
int bench_scheduler(std::span<const std::string_view> args);

}  // namespace multiverse
