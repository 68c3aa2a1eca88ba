// What the API side knows of the model that is served.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/api/tool_format.h"
#include "multiverse/config/model_config.h"
#include "multiverse/constrain/compiler.h"
#include "multiverse/dialect/dialect.h"
#include "multiverse/scheduler/request.h"
#include "multiverse/tokenizer/chat_template.h"
#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse {

// Immutable once serving; any thread.
struct ServedModel {
  std::vector<std::string> names;                         // accepted as `model`; the first one stands in responses
  std::int64_t created = 0;                               // Unix seconds
  std::shared_ptr<const Tokenizer> tokenizer;             // never null
  std::shared_ptr<const ChatTemplate> chat_template;      // null: the model has none, chat is refused
  ToolFormat tool_format = ToolFormat::kNone;             // of the chat template
  std::optional<Dialect> dialect;                         // nullopt: a sequential model
  GenerationConfig generation;                            // sampling defaults
  std::int32_t vocab_size = 0;                            // token ids of requests are below it
  std::int32_t max_model_len = 0;                         // positions
  std::int32_t max_n = 8;                                 // cap of `n`
  std::shared_ptr<const ConstraintCompiler> constraints;  // null: replies can't be held to a syntax
  std::size_t max_stop_strings = 4;                       // cap of `stop`
  StructureLimits limits;                                 // caps and defaults of `multiverse`; 0 = no cap of ours

  const std::vector<std::int32_t>& control_tokens() const;
  // What a token adds to the reply's text: special tokens are hidden, the dialect's control tokens shown.
  std::string_view visible_bytes(TokenId token) const;
};

}  // namespace multiverse
