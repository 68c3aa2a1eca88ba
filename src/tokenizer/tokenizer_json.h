// Reads and checks `tokenizer.json`. Only tokenizer_json.cpp and model_json.cpp see the JSON library.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "multiverse/base/status.h"

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pre_tokenizer.h"

namespace multiverse::tokenizer {

struct TokenizerParts {
  BpeData model;  // `tokens` is long enough for the added tokens' ids too
  std::vector<AddedToken> added_tokens;
  bool nfc = false;
  PreTokenizer pre_tokenizer;
};

// Everything that `tokenizers` would do differently is refused by name. Not looked at: `post_processor` (encode adds no
// special tokens), `truncation` and `padding` (transformers sets them at each call).
Result<TokenizerParts> parse_tokenizer_json(std::string_view json);

}  // namespace multiverse::tokenizer
