// From messages and texts to token ids.
#pragma once

#include <string>
#include <vector>

#include "multiverse/api/served_model.h"
#include "multiverse/base/status.h"

namespace multiverse {

struct RenderedPrompt {
  std::string text;
  std::vector<TokenId> tokens;  // at least one
};

// Through the model's chat template. What users wrote never becomes a special token.
Result<RenderedPrompt> render_prompt(const ServedModel& model, const ChatTemplateInput& input);

}  // namespace multiverse
