// The parts of tokenizer.json with a token in each line: the model's vocabulary and merges, and the added tokens.
#pragma once

#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/json_fields.h"

namespace multiverse::tokenizer {

// `model`; ids are bounded by the number of tokens, so that no file makes tables larger than itself.
Result<BpeData> parse_model(const Json& model);

// `added_tokens`; their ids must be those that `tokenizers` gives: the vocabulary's where the content is in it, else
// counted on from the vocabulary's size in the file's order. `model.tokens` grows to hold them.
Result<std::vector<AddedToken>> parse_added_tokens(const Json& list, const Json& vocabulary, bool nfc, BpeData& model);

}  // namespace multiverse::tokenizer
