#include "multiverse/dialect/made_up.h"

#include <string_view>
#include <utility>
#include <vector>

namespace multiverse {

Dialect made_up_dialect(std::string name, MadeUpIds ids) {
  Dialect dialect;
  dialect.name = std::move(name);
  std::int32_t next = ids.block_open;
  for (std::int32_t* id :
       {&dialect.block_open, &dialect.block_close, &dialect.goal_open, &dialect.fork, &dialect.outline_open,
        &dialect.outline_close, &dialect.path_open, &dialect.path_close, &dialect.conclusion_open,
        &dialect.conclusion_close, &dialect.think_open, &dialect.think_close}) {
    dialect.control_tokens.push_back(*id = next++);
  }
  dialect.separator = ids.separator;
  dialect.encode = [ids](std::string_view text) {
    std::vector<std::int32_t> tokens;
    for (const char c : text) tokens.push_back(c == '.' ? ids.dot : c == ':' ? ids.colon : ids.digit + (c - '0'));
    return tokens;
  };
  dialect.label_table.emplace_back(ids.separator, "\n");
  for (std::int32_t digit = 0; digit < 10; ++digit) {
    dialect.label_table.emplace_back(ids.digit + digit, std::to_string(digit));
  }
  dialect.label_table.emplace_back(ids.dot, ".");
  dialect.label_table.emplace_back(ids.colon, ":");
  return dialect;
}

}  // namespace multiverse
