// `multiverse inspect`: the tree of a structured text.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "multiverse/api/structure_report.h"
#include "multiverse/exec/step.h"

#include "commands/commands.h"
#include "commands/places.h"
#include "commands/traces.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse inspect [--json] [--tokenizer DIR] [--dialect NAME|FILE] FILE|-

Shows the tree of a structured text: blocks, widths, depths, tokens, critical path, and what breaks the grammar and
where. FILE (- is standard input) is a text, or JSON lines with a field "completion".

  --json           one JSON object a line instead of the drawing
  --tokenizer DIR  folder with tokenizer.json (default: the model that ships)
  --dialect D      a name of configs/dialects, or a file (default: the one whose tokens the tokenizer has)
)";

struct Options {
  bool json = false;
  std::string tokenizer_dir = shipped_model_dir();
  std::string dialect = "auto";
  std::string file;
};

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--json") {
      options.json = true;
    } else if (args[i] == "--tokenizer") {
      if (++i == args.size()) return invalid_argument("--tokenizer needs a folder");
      options.tokenizer_dir = args[i];
    } else if (args[i] == "--dialect") {
      if (++i == args.size()) return invalid_argument("--dialect needs a name or a file");
      options.dialect = args[i];
    } else if (args[i].size() > 1 && args[i].front() == '-') {
      return invalid_argument(concat("unknown option ", args[i], "; see multiverse inspect --help"));
    } else if (!options.file.empty()) {
      return invalid_argument(concat("one file at a time, got ", options.file, " and ", args[i]));
    } else {
      options.file = args[i];
    }
  }
  if (options.file.empty()) return invalid_argument("which file? (- is standard input); see multiverse inspect --help");
  return options;
}

std::string excerpt(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens, std::int32_t begin,
                    std::int32_t end) {
  constexpr std::int32_t kMostTokens = 16;
  const auto from = tokens.begin() + begin;
  const bool shortened = end - begin > kMostTokens;
  std::string text = tokenizer.decode(std::vector<TokenId>(from, from + std::min(end - begin, kMostTokens)));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return shortened ? text + "…" : text;
}

void draw(const Tokenizer& tokenizer, const Trace& trace, const StructuredText& text) {
  const auto& [tokens, structure] = text;
  const TreeStatistics& counted = structure.statistics;
  const double ratio = counted.critical_path_tokens > 0
                           ? static_cast<double>(tokens.size()) / static_cast<double>(counted.critical_path_tokens)
                           : 1.0;
  std::printf("%s: %zu tokens, critical path %lld (%.2f tokens a step of it), %lld steps\n", trace.name.c_str(),
              tokens.size(), static_cast<long long>(counted.critical_path_tokens), ratio,
              static_cast<long long>(counted.steps));
  std::printf("  %lld blocks fork into %lld paths; at most %lld wide, %lld deep\n",
              static_cast<long long>(counted.blocks), static_cast<long long>(counted.paths),
              static_cast<long long>(counted.max_width), static_cast<long long>(counted.max_depth));
  for (const TextPath& path : structure.paths) {
    const auto depth = static_cast<int>(path.address.size() / 2);
    const bool first = path.address.back() == 1;
    std::printf("  %*s%s %-8s %5d tokens%s  %s\n", (depth - 1) * 4, "", first ? "┌" : "│",
                to_string(path.address).c_str(), path.own_tokens, path.ended ? "" : " (never closed)",
                excerpt(tokenizer, tokens, path.begin + 2, path.end).c_str());
  }
  for (const MalformedPlace& place : malformed_places(text, tokenizer)) {
    std::printf("  malformed: %s at token %d, %s\n",
                std::string(tokenizer.token_bytes(tokens[static_cast<std::size_t>(place.token)])).c_str(), place.token,
                place.text().c_str());
  }
}

Status inspect(const Options& options) {
  Result<std::shared_ptr<const Tokenizer>> loaded = Tokenizer::load(options.tokenizer_dir);
  if (!loaded.ok()) return loaded.error();
  const Tokenizer& tokenizer = *loaded.value();
  Result<std::optional<Dialect>> dialect = load_dialect(options.dialect, tokenizer);
  if (!dialect.ok()) return dialect.error();
  if (!dialect.value()) {
    return invalid_argument("the tokenizer in " + options.tokenizer_dir + " has no dialect's control tokens");
  }
  Result<std::vector<Trace>> traces = read_traces(options.file);
  if (!traces.ok()) return traces.error();
  for (const Trace& trace : traces.value()) {
    const StructuredText text(trace.completion, tokenizer, *dialect.value());
    if (options.json) {
      std::puts(structure_report(trace.name, text, tokenizer, /*segments=*/false).c_str());
    } else {
      draw(tokenizer, trace, text);
    }
  }
  return ok_status();
}

}  // namespace

int inspect_command(std::span<const std::string_view> args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  Result<Options> options = parse(args);
  if (!options.ok()) {
    std::fprintf(stderr, "multiverse inspect: %s\n", options.error().message.c_str());
    return 2;
  }
  const Status done = inspect(options.value());
  if (done.ok()) return 0;
  std::fprintf(stderr, "multiverse inspect: %s\n", done.error().message.c_str());
  return 1;
}

}  // namespace multiverse
