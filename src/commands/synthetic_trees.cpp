#include "commands/synthetic_trees.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "multiverse/base/check.h"
#include "multiverse/dialect/made_up.h"

namespace multiverse {
namespace {

constexpr MadeUpIds kIds = {.block_open = 2, .separator = 1, .digit = 32, .dot = 42, .colon = 43};

void append(std::vector<TokenId>& text, const std::vector<TokenId>& tokens) {
  text.insert(text.end(), tokens.begin(), tokens.end());
}

void append_outlines(std::vector<TokenId>& text, std::int32_t paths, const Dialect& dialect) {
  for (std::int32_t path = 1; path <= paths; ++path) {
    text.push_back(dialect.outline_open);
    append(text, dialect.encode(std::to_string(path) + ":"));
    text.push_back(dialect.outline_close);
  }
}

class AnswerWriter {
 public:
  AnswerWriter(std::mt19937_64& random, double scale, const Dialect& dialect)
      : random_(random), scale_(scale), dialect_(dialect) {}

  std::vector<TokenId> write() {
    const auto blocks = static_cast<int>(random_() % 11);
    for (int block = 0; block < blocks; ++block) {
      words(length(500.0, 0.8, 3000.0));
      add_block(/*depth=*/1);
    }
    words(length(1500.0, 0.7, 8000.0));
    return std::move(text_);
  }

 private:
  // Log-normal with this median.
  std::int32_t length(double median, double sigma, double most) {
    const double drawn = median * std::exp(sigma * normal_(random_));
    return std::max(1, static_cast<std::int32_t>(std::min(drawn, most) * scale_));
  }
  void words(std::int32_t count) {
    for (; count > 0; --count) {
      text_.push_back(kSyntheticWord + static_cast<TokenId>(random_() % (kSyntheticVocabulary - kSyntheticWord)));
    }
  }
  std::int32_t width() {
    const auto drawn = random_() % 100;
    if (drawn == 0) return 100;
    if (drawn < 60) return 2;
    return 3 + static_cast<std::int32_t>(drawn < 85 ? drawn % 2 : drawn % 8);
  }
  void add_block(int depth) {
    const std::int32_t paths = width();
    append(text_, {dialect_.block_open, dialect_.goal_open});
    append_outlines(text_, paths, dialect_);
    append(text_, {dialect_.fork, dialect_.separator});
    for (std::int32_t path = 1; path <= paths; ++path) {
      append(text_, dialect_.path_header(std::to_string(path)));
      words(length(80.0, 1.2, 2000.0));
      if (depth == 1 && random_() % 20 == 0) add_block(depth + 1);
      append(text_, {dialect_.path_close, dialect_.separator});
    }
    append(text_, dialect_.conclusion_header());
    words(length(60.0, 0.6, 400.0));
    append(text_, {dialect_.conclusion_close, dialect_.block_close});
  }

  std::mt19937_64& random_;
  const double scale_;
  const Dialect& dialect_;
  std::normal_distribution<double> normal_;
  std::vector<TokenId> text_;
};

}  // namespace

Dialect synthetic_dialect() {
  return made_up_dialect("synthetic", kIds);
}

std::vector<TokenId> synthetic_plan(std::int32_t context, std::int32_t paths, std::int32_t salt,
                                    const Dialect& dialect) {
  std::vector<TokenId> prompt(static_cast<std::size_t>(context));
  for (std::int32_t i = 0; i < context; ++i) {
    prompt[static_cast<std::size_t>(i)] =
        kSyntheticWord + (i * 37 + salt * 101 + salt / 7) % (kSyntheticVocabulary - kSyntheticWord);
  }
  if (paths == 0) return prompt;
  append(prompt, {dialect.block_open, dialect.goal_open});
  append_outlines(prompt, paths, dialect);
  return prompt;
}

GenerateRequest synthetic_answer(std::mt19937_64& random, double scale, const Dialect& dialect) {
  GenerateRequest request;
  request.prompt = synthetic_plan(100 + static_cast<std::int32_t>(random() % 200), 0,
                                  static_cast<std::int32_t>(random() % 1'000'000), dialect);
  std::vector<TokenId> text = request.prompt;
  append(text, AnswerWriter(random, scale, dialect).write());
  const auto prompt = static_cast<std::int32_t>(request.prompt.size());
  request.max_tokens = static_cast<std::int32_t>(text.size()) - prompt;
  Result<Recording> recording = Recording::read(text, prompt, &dialect, request.limits);
  CHECK(recording.ok(), "a synthetic answer can't be replayed: ", recording.error().message);
  request.recording = std::make_shared<const Recording>(std::move(recording).value());
  return request;
}

}  // namespace multiverse
