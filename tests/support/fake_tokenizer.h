// A tokenizer, a chat template and a dialect that need no files.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "multiverse/api/served_model.h"

namespace multiverse::testing {

// Ids 0 to 255 are the bytes; then come added tokens.
inline constexpr TokenId kEndOfTurn = 256;    // "<|im_end|>", special
inline constexpr TokenId kStartOfTurn = 257;  // "<|im_start|>", special
inline constexpr TokenId kParallel = 258;     // control tokens of the dialect from here on, special too
inline constexpr TokenId kGoal = 259, kGoalEnd = 260, kPath = 261, kPathEnd = 262, kConclusion = 263,
                         kConclusionEnd = 264, kParallelEnd = 265, kThink = 266, kThinkEnd = 267;
inline constexpr TokenId kHello = 268;  // "Hello", an ordinary token of several bytes

// The bytes of one text, as ids; special tokens are not read.
std::vector<TokenId> bytes_of(std::string_view text);

// "fake-model" (alias "fake"), with all of the above, chat included.
std::shared_ptr<ServedModel> fake_model();

}  // namespace multiverse::testing
