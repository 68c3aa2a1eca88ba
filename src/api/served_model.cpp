#include "multiverse/api/served_model.h"

#include <algorithm>

namespace multiverse {

const std::vector<std::int32_t>& ServedModel::control_tokens() const {
  static const std::vector<std::int32_t> kNone;
  return dialect ? dialect->control_tokens : kNone;
}

std::string_view ServedModel::visible_bytes(TokenId token) const {
  const auto& control = control_tokens();
  const bool hidden = tokenizer->is_special(token) && !std::binary_search(control.begin(), control.end(), token);
  return hidden ? std::string_view() : tokenizer->token_bytes(token);
}

}  // namespace multiverse
