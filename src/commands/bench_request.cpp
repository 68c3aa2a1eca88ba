// `multiverse bench request`: what a request costs before its first step, on the HTTP side.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "multiverse/api/job.h"

#include "api/json.h"  // not public, but the parser that requests go through is what is measured
#include "commands/bench.h"
#include "commands/places.h"
#include "commands/serving.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse bench request [options]

What a chat request costs before its first step: the JSON parsed, the template rendered, the prompt tokenised. Median
and 99th percentile of the runs, beside the 5 ms that all of it may take.

  --model DIR   default: the model that ships
  --tokens N    tokens of the prompt (default 4000)
  --runs N      default 200
)";

constexpr double kWantedMilliseconds = 5.0;

struct Options {
  std::string model_dir = shipped_model_dir();
  std::size_t tokens = 4000, runs = 200;
};

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string_view name = args[i];
    if (name != "--model" && name != "--tokens" && name != "--runs") {
      return invalid_argument(concat("unknown option ", name, "; see multiverse bench request --help"));
    }
    if (++i == args.size()) return invalid_argument(concat(name, " needs a value"));
    if (name == "--model") {
      options.model_dir = args[i];
      continue;
    }
    constexpr std::size_t kMost = 1'000'000;
    const Result<std::size_t> number = count_option(name, args[i], kMost);
    if (!number.ok()) return number.error();
    (name == "--tokens" ? options.tokens : options.runs) = number.value();
  }
  return options;
}

// Words of all lengths, with numbers and punctuation, so that no table of common words answers for all of them. Always
// the same text.
std::string words(std::size_t count) {
  static constexpr std::string_view kSyllables[] = {"ta", "ren", "mi", "so", "ker", "lo", "van", "is", "qu", "ed"};
  std::string text;
  std::uint32_t state = 1;
  const auto draw = [&state](std::uint32_t below) {
    state = state * 1664525U + 1013904223U;
    return (state >> 16U) % below;
  };
  for (std::size_t word = 0; word < count; ++word) {
    if (draw(8) == 0) {
      text += std::to_string(draw(10000));
    } else {
      for (std::uint32_t left = 1 + draw(4); left > 0; --left) text += kSyllables[draw(std::size(kSyllables))];
    }
    text += draw(12) == 0 ? ".\n" : " ";
  }
  return text;
}

// A question of about `tokens` tokens.
std::string question(const Tokenizer& tokenizer, std::size_t tokens) {
  constexpr std::size_t kSample = 1000;
  const double tokens_per_word =
      static_cast<double>(tokenizer.encode(words(kSample), Trust::kNone).size()) / static_cast<double>(kSample);
  return words(std::max<std::size_t>(1, static_cast<std::size_t>(static_cast<double>(tokens) / tokens_per_word)));
}

// Milliseconds of each run of one part.
struct Part {
  const char* name;
  std::vector<double> runs = {};

  template <class Work>
  void measure(const Work& work) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    runs.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  double at(double share) const {
    std::vector<double> sorted = runs;
    std::sort(sorted.begin(), sorted.end());
    return sorted[std::min(sorted.size() - 1, static_cast<std::size_t>(share * static_cast<double>(sorted.size())))];
  }
};

Status bench(const Options& options) {
  ServerConfig config;
  config.model = options.model_dir;
  config.served_model_name = {"bench"};
  auto loaded = load_texts(config);
  if (!loaded.ok()) return loaded.error();
  ServedModel& model = *loaded.value();
  if (model.chat_template == nullptr) return invalid_argument("the model has no chat template");
  // The engine's, which doesn't run here: nothing is refused for its length.
  model.vocab_size = model.tokenizer->size();
  model.max_model_len = std::numeric_limits<std::int32_t>::max();

  const std::string asked = question(*model.tokenizer, options.tokens);
  const std::string body =
      dump({{"messages", OrderedJson::array({{{"role", "user"}, {"content", asked}}})}, {"stream", true}});
  ChatTemplateInput input;
  input.messages.push_back({"user", asked, "", "", "", ""});
  Part parsing{"parse JSON"}, rendering{"render"}, tokenising{"tokenise"}, all{"all"};
  std::size_t tokens = 0;
  for (std::size_t run = 0; run < options.runs; ++run) {
    Result<Json> json = Json();
    parsing.measure([&] { json = parse_json(body); });
    if (!json.ok()) return json.error();
    Result<TrustedText> rendered = TrustedText();
    rendering.measure([&] { rendered = model.chat_template->render(input); });
    if (!rendered.ok()) return rendered.error();
    tokenising.measure([&] { tokens = model.tokenizer->encode(rendered.value(), model.control_tokens()).size(); });
    Result<Job> job = Job();
    all.measure([&] { job = parse_chat_request(body, model); });  // as the server does it, fields' checks included
    if (!job.ok()) return job.error();
  }
  std::printf("a chat request of %zu bytes, %zu prompt tokens, %zu runs\n", body.size(), tokens, options.runs);
  for (const Part* part : {&parsing, &rendering, &tokenising}) {
    std::printf("  %-12s median %7.3f ms   p99 %7.3f ms\n", part->name, part->at(0.5), part->at(0.99));
  }
  std::printf("  %-12s median %7.3f ms   p99 %7.3f ms   wanted <= %.1f ms   x %.2f\n", all.name, all.at(0.5),
              all.at(0.99), kWantedMilliseconds, all.at(0.5) / kWantedMilliseconds);
  return ok_status();
}

}  // namespace

int bench_request(std::span<const std::string_view> args) {
  return run_benchmark("request", kHelp, args, parse, bench);
}

}  // namespace multiverse
