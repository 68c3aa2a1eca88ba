// `multiverse bench`: finds the benchmark and hands over.
#include "commands/bench.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <string>

#include "multiverse/base/check.h"

#include "commands/commands.h"

namespace multiverse {
namespace {

struct Benchmark {
  std::string_view name;
  std::string_view summary;
  int (*run)(std::span<const std::string_view> args);
};

constexpr std::array kBenchmarks{
    Benchmark{"constraint", "what it costs to hold a reply to a schema, a pattern or a tool call", bench_constraint},
    Benchmark{"decode", "milliseconds a decode step, through scheduler and model", bench_decode},
    Benchmark{"http", "what the HTTP side adds to an engine that pretends", bench_http},
    Benchmark{"policies", "which way of admitting and sharing answers most requests in time, simulated",
              bench_policies},
    Benchmark{"prefill", "what a long prompt does to the streams beside it", bench_prefill},
    Benchmark{"request", "what a request costs before its first step: parse, render, tokenise", bench_request},
    Benchmark{"scheduler", "microseconds and bytes of the scheduler itself", bench_scheduler},
};

}  // namespace

Result<std::size_t> count_option(std::string_view name, std::string_view value, std::size_t most) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number == 0 || number > most) {
    return invalid_argument(concat(name, " is '", value, "'; it takes a number from 1 to ", most));
  }
  return number;
}

int bench_command(std::span<const std::string_view> args) {
  const std::string_view name = args.empty() ? "" : args.front();
  for (const Benchmark& benchmark : kBenchmarks) {
    if (benchmark.name == name) return benchmark.run(args.subspan(1));
  }
  std::string text = "Usage: multiverse bench NAME [OPTIONS]\n\nBenchmarks:\n";
  for (const Benchmark& benchmark : kBenchmarks) {
    text += concat("  ", benchmark.name, std::string(10 - benchmark.name.size(), ' '), benchmark.summary, "\n");
  }
  const bool asked = name == "--help" || name == "-h";
  if (!asked && !name.empty())
    std::fputs(concat("multiverse bench: there is no benchmark '", name, "'\n").c_str(), stderr);
  std::fputs(text.c_str(), asked ? stdout : stderr);
  return asked ? 0 : 2;
}

}  // namespace multiverse
