// Encodes texts from stdin, for tests/tokenizer/test_against_huggingface.py.
//   tokenizer_check encode MODEL_DIR all|none    texts end with a NUL → one line of ids each
//   tokenizer_check json MODEL_DIR all|none      each line is a JSON string → one line of ids each
//   tokenizer_check decode MODEL_DIR             lines of ids → texts, each ends with a NUL
//   tokenizer_check time MODEL_DIR               CPU time of encoding 1 MiB of hard texts each, and stdin
#include <chrono>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse {
namespace {

int fail(const std::string& message) {
  std::cerr << "tokenizer_check: " << message << '\n';
  return 2;
}

void print_ids(const std::vector<std::int32_t>& ids) {
  std::string line;
  for (const std::int32_t id : ids) {
    if (!line.empty()) line += ' ';
    line += std::to_string(id);
  }
  std::cout << line << '\n';
}

int encode(const Tokenizer& tokenizer, const std::string& trust_name, bool json) {
  if (trust_name != "all" && trust_name != "none") return fail("trust is all or none, not '" + trust_name + "'");
  const Trust trust = trust_name == "all" ? Trust::kAll : Trust::kNone;
  std::string text;
  while (std::getline(std::cin, text, json ? '\n' : '\0'))
    print_ids(tokenizer.encode(json ? nlohmann::json::parse(text).get<std::string>() : text, trust));
  return 0;
}

int decode(const Tokenizer& tokenizer) {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream in(line);
    std::vector<std::int32_t> ids;
    for (std::int32_t id = 0; in >> id;) ids.push_back(id);
    std::cout << tokenizer.decode(ids) << '\0';
  }
  return 0;
}

void time_one(const Tokenizer& tokenizer, const std::string& name, const std::string& text) {
  double best = 1e9;
  std::size_t count = 0;
  for (int i = 0; i < 5; ++i) {
    const std::clock_t start = std::clock();
    count = tokenizer.encode(text, Trust::kAll).size();
    best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  std::printf("%-28s %9zu bytes %9zu tokens %8.2f ms %8.1f MB/s\n", name.c_str(), text.size(), count, best * 1e3,
              static_cast<double>(text.size()) / best / 1e6);
}

int time(const Tokenizer& tokenizer) {
  const std::vector<std::pair<std::string, std::string>> units = {
      {"a", "a"},
      {"space", " "},
      {"newline", "\n"},
      {"emoji", "😀"},
      {"digit", "7"},
      {"combining acute", "\u0301"},
      {"marks in falling class", "\u0345\u0301\u0316\u0334"},
      {"NUL", std::string(1, '\0')},
      {"<", "<"},
      {"punctuation", "!"},
      {"ab", "ab"},
      {"CR LF", "\r\n"},
      {"invalid byte", "\xff"},
      {"Hangul jamo", "\u1112\u1161\u11ab"},
      {"CJK", "漢字"},
  };
  for (const auto& [name, unit] : units) {
    std::string text;
    while (text.size() + unit.size() <= 1u << 20) text += unit;
    time_one(tokenizer, name, text);
  }
  time_one(tokenizer, "spaces, then a letter", std::string((1u << 20) - 1, ' ') + "a");
  std::string letters;
  for (std::uint32_t i = 0, x = 1; i < 1u << 20; ++i, x = x * 1664525u + 1013904223u)
    letters += static_cast<char>('a' + (x >> 16) % 26);
  time_one(tokenizer, "random letters, one word", letters);
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  if (!text.empty()) time_one(tokenizer, "stdin", text);
  return 0;
}

}  // namespace
}  // namespace multiverse

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() < 2) return multiverse::fail("usage: tokenizer_check encode|json|decode|time MODEL_DIR [all|none]");
  std::ios::sync_with_stdio(false);
  const auto start = std::chrono::steady_clock::now();
  const auto loaded = multiverse::Tokenizer::load(args[1]);
  if (!loaded.ok()) return multiverse::fail(loaded.error().message);
  const multiverse::Tokenizer& tokenizer = *loaded.value();
  if (args[0] == "decode") return multiverse::decode(tokenizer);
  if (args[0] == "time") {
    std::printf("load %.0f ms\n",
                std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    return multiverse::time(tokenizer);
  }
  if (args.size() == 3 && (args[0] == "encode" || args[0] == "json"))
    return multiverse::encode(tokenizer, args[2], args[0] == "json");
  return multiverse::fail("unknown command " + args[0]);
}
