// The small endpoints: bodies in, bodies out. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "multiverse/api/served_model.h"
#include "multiverse/base/status.h"

namespace multiverse {

// GET /v1/models and /v1/models/{id}.
std::string models_body(const ServedModel& model);
Result<std::string> model_body(const ServedModel& model, std::string_view id);

// POST /tokenize: {"prompt": text, "parse_special"?, "return_token_strs"?} or {"messages": …} as in chat.
Result<std::string> tokenize_body(std::string_view request, const ServedModel& model);
// POST /detokenize: {"tokens": ids}.
Result<std::string> detokenize_body(std::string_view request, const ServedModel& model);
// POST /v1/chat/completions/render: a chat request; what its messages become, without generating.
Result<std::string> render_body(std::string_view request, const ServedModel& model);

// GET /openapi.json: what requests and answers look like.
std::string_view openapi_document();

// GET /version.
std::string version_body(std::string_view version);
// {"status": text}: the health endpoints.
std::string status_body(std::string_view status);

}  // namespace multiverse
