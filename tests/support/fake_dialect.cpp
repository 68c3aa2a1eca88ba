#include "tests/support/fake_dialect.h"

#include <utility>

#include "multiverse/base/check.h"

namespace multiverse::testing {

TokenSource fake_token_source(std::map<std::string, std::int32_t, std::less<>> named) {
  TokenSource source;
  source.size = kVocabulary;
  source.token_id = [named = std::move(named)](std::string_view content) -> std::optional<std::int32_t> {
    const auto found = named.find(content);
    return found == named.end() ? std::nullopt : std::optional(found->second);
  };
  source.token_bytes = [](std::int32_t id) -> std::string_view {
    constexpr std::string_view kCharacters = "0123456789.:";
    if (id == kNewline) return "\n";
    if (id >= kDigit && id <= kColon) return kCharacters.substr(static_cast<std::size_t>(id - kDigit), 1);
    return "word";
  };
  source.encode = [](std::string_view text) {
    std::vector<std::int32_t> tokens;
    for (const char c : text) {
      tokens.push_back(c == '\n' ? kNewline : c == ':' ? kColon : c == '.' ? kDot : kDigit + (c - '0'));
    }
    return tokens;
  };
  return source;
}

const Dialect& third_dialect() {
  static const Dialect dialect = [] {
    const TokenSource tokens = fake_token_source({{"<fan>", kGoal},
                                                  {"</fan>", kEndGoal},
                                                  {"</all>", kEndParallel},
                                                  {"<job>", kOutline},
                                                  {"<run>", kPath},
                                                  {"</run>", kEndPath},
                                                  {"<sum>", kConclusion}});
    Result<Dialect> loaded = Dialect::load(MULTIVERSE_ROOT "/tests/dialect/third.json", tokens);
    CHECK(loaded.ok(), loaded.error().message);
    return std::move(loaded).value();
  }();
  return dialect;
}

}  // namespace multiverse::testing
