// `multiverse bench constraint`: what it costs to hold a reply to a syntax.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "multiverse/constrain/compiler.h"

#include "commands/bench.h"
#include "commands/places.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse bench constraint [options]

What it costs to hold a reply to a syntax: to compile it (in the thread of the request), and for each token to go on and
to have the next mask (in the engine's thread), for the first reply of a constraint and for later ones, which find the
masks that were made before. Replies are random tokens of those allowed, which reach more states than a model does.

  --model DIR    whose tokenizer (default: the model that ships)
  --replies N    default 50
  --seed N       default 1
)";

constexpr double kWantedMilliseconds = 1.0;
constexpr int kMostTokens = 300;  // of one reply

struct Options {
  std::string model_dir = shipped_model_dir();
  std::size_t replies = 50, seed = 1;
};

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string_view name = args[i];
    if (name != "--model" && name != "--replies" && name != "--seed") {
      return invalid_argument(concat("unknown option ", name, "; see multiverse bench constraint --help"));
    }
    if (++i == args.size()) return invalid_argument(concat(name, " needs a value"));
    if (name == "--model") {
      options.model_dir = args[i];
      continue;
    }
    constexpr std::size_t kMost = 1'000'000;
    const Result<std::size_t> number = count_option(name, args[i], kMost);
    if (!number.ok()) return number.error();
    (name == "--seed" ? options.seed : options.replies) = number.value();
  }
  return options;
}

struct Case {
  const char* name;
  ConstraintSpec spec;
};

std::vector<Case> cases() {
  using Kind = ConstraintSpec::Kind;
  const char* person = R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer",
    "minimum": 0, "maximum": 150}, "email": {"type": "string", "format": "email"}, "tags": {"type": "array",
    "items": {"type": "string"}, "maxItems": 8}, "kind": {"enum": ["a", "b", "c"]}}, "required": ["name", "age"],
    "additionalProperties": false})";
  ToolSyntax tools{"<tool_call>\n", "arguments", "\n</tool_call>", 4, {{"weather", person}, {"search", person}}};
  return {{"any JSON object", {Kind::kJsonObject, ""}},
          {"a schema of five properties", {Kind::kJsonSchema, person}},
          {"tool calls", {Kind::kToolCalls, tool_calls_text(tools)}},
          {"a date, as a pattern", {Kind::kRegex, R"(\d{4}-\d{2}-\d{2})"}},
          {"any text, as a pattern", {Kind::kRegex, R"((.|\n)*)"}},
          {"an ambiguous pattern", {Kind::kRegex, R"((.*a){1,20})"}}};
}

using Clock = std::chrono::steady_clock;
double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

struct Times {
  std::vector<double> milliseconds;
  double at(double share) {
    if (milliseconds.empty()) return 0.0;
    std::sort(milliseconds.begin(), milliseconds.end());
    const auto last = static_cast<double>(milliseconds.size() - 1);
    return milliseconds[static_cast<std::size_t>(share * last)];
  }
};

std::vector<std::int32_t> tokens_of(std::span<const std::uint64_t> mask) {
  std::vector<std::int32_t> tokens;
  for (std::size_t word = 0; word < mask.size(); ++word) {
    for (std::uint64_t bits = mask[word]; bits != 0; bits &= bits - 1) {
      tokens.push_back(static_cast<std::int32_t>(word * 64) + std::countr_zero(bits));
    }
  }
  return tokens;
}

// One random reply; the time of each token's accept() and allowed().
void reply(const Constraint& constraint, const std::vector<std::int32_t>& ends, std::mt19937_64& random, Times& times) {
  auto start = Clock::now();
  const auto state = constraint.start();
  for (int i = 0; i < kMostTokens; ++i) {
    const auto mask = state->allowed();
    times.milliseconds.push_back(milliseconds_since(start));
    const std::vector<std::int32_t> tokens = tokens_of(mask);
    if (tokens.empty()) return;
    const std::int32_t token = tokens[random() % tokens.size()];
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) return;
    start = Clock::now();
    if (!state->accept(token)) return;
  }
}

Status bench(const Options& options) {
  const auto loaded = Tokenizer::load(options.model_dir);
  if (!loaded.ok()) return loaded.error();
  const Tokenizer& tokenizer = *loaded.value();
  const std::vector<std::int32_t> ends{tokenizer.size() - 1};
  auto start = Clock::now();
  const auto compiler = ConstraintCompiler::make(tokenizer, {}, ends, tokenizer.size(), {});
  std::printf("vocabulary of %d tokens, made into a tree in %.0f ms; at most %.0f ms a token are wanted (p99)\n\n",
              tokenizer.size(), milliseconds_since(start), kWantedMilliseconds);
  std::printf("%-28s %10s  %28s  %28s\n", "", "compile ms", "first reply: p50 p99 max ms", "later: p50 p99 max ms");
  for (const Case& one : cases()) {
    std::mt19937_64 random(options.seed);
    start = Clock::now();
    const auto constraint = compiler->compile(one.spec, false);
    const double compiled = milliseconds_since(start);
    if (!constraint.ok()) return constraint.error();
    Times first, later;
    reply(*constraint.value(), ends, random, first);
    for (std::size_t i = 1; i < options.replies; ++i) reply(*constraint.value(), ends, random, later);
    std::printf("%-28s %10.2f  %9.4f %8.3f %9.2f  %9.4f %8.3f %9.2f\n", one.name, compiled, first.at(0.5),
                first.at(0.99), first.at(1.0), later.at(0.5), later.at(0.99), later.at(1.0));
  }
  return ok_status();
}

}  // namespace

int bench_constraint(std::span<const std::string_view> args) {
  return run_benchmark("constraint", kHelp, args, parse, bench);
}

}  // namespace multiverse
