// Structured texts that need no model and no tokenizer: what benchmarks of the scheduler feed it.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "multiverse/dialect/dialect.h"
#include "multiverse/scheduler/recording.h"
#include "multiverse/scheduler/request.h"

namespace multiverse {

// A dialect like Multiverse's over ids below kSyntheticVocabulary.
Dialect synthetic_dialect();
inline constexpr TokenId kSyntheticVocabulary = 256;
inline constexpr TokenId kSyntheticWord = 64;  // this and above: ordinary tokens

// `context` ordinary tokens, then a plan of so many paths; `salt` tells prompts apart. It ends before the token that
// forks.
std::vector<TokenId> synthetic_plan(std::int32_t context, std::int32_t paths, std::int32_t salt,
                                    const Dialect& dialect);

// An answer drawn like those of Multiverse-32B to AIME questions (4,500 to 11,600 tokens, up to ten blocks, most of two
// or three paths, half of the paths under 80 tokens, a block in a hundred of a hundred paths), `scale` (0 … 1] times as
// long. As a request that writes it again.
GenerateRequest synthetic_answer(std::mt19937_64& random, double scale, const Dialect& dialect);

}  // namespace multiverse
