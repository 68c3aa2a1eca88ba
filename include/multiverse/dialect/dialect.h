// A family of models that think in parallel, as data: which tokens open, fork, end and join, and what the engine
// writes. No tag is known to the code by name; `configs/dialects/*.json` has them.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/base/status.h"

namespace multiverse {

// What the dialect needs of a tokenizer, so that it links none.
struct TokenSource {
  std::function<std::optional<std::int32_t>(std::string_view content)> token_id;
  std::function<std::string_view(std::int32_t id)> token_bytes;
  std::function<std::vector<std::int32_t>(std::string_view text)> encode;  // plain text, no added tokens
  std::int32_t size = 0;                                                   // ids are [0, size)
};

// Immutable after load; any thread. Ids are -1 where the dialect has no such token. Two may be missing that the grammar
// needs: without block_open a goal_open opens a block too, without block_close a conclusion_close closes one too.
struct Dialect {
  std::string name;

  // Control tokens.
  std::int32_t block_open = -1;              // <Parallel>
  std::int32_t block_close = -1;             // </Parallel>
  std::int32_t goal_open = -1;               // <Goal>
  std::int32_t fork = -1;                    // </Goal>
  std::int32_t outline_open = -1;            // <Outline>
  std::int32_t outline_close = -1;           // </Outline>
  std::int32_t path_open = -1;               // <Path>
  std::int32_t path_close = -1;              // </Path>
  std::int32_t conclusion_open = -1;         // <Conclusion>
  std::int32_t conclusion_close = -1;        // </Conclusion>
  std::int32_t think_open = -1;              // <Think>
  std::int32_t think_close = -1;             // </Think>
  std::int32_t separator = -1;               // the newline token
  std::vector<std::int32_t> control_tokens;  // all of the above but the separator, sorted

  // Forks inside paths: a path at this depth forks no more. 1 where blocks don't nest.
  std::int32_t max_depth = std::numeric_limits<std::int32_t>::max();

  static constexpr std::size_t kMaxLabelBytes = 32;
  static constexpr int kMaxLabelParts = 16;

  bool opens_block(std::int32_t token) const { return token == (block_open >= 0 ? block_open : goal_open); }
  bool closes_block(std::int32_t token) const { return token == (block_close >= 0 ? block_close : conclusion_close); }

  // The forced header of a path, <Path> ⏎ encode(label + ":").
  std::vector<std::int32_t> path_header(std::string_view label) const;
  // The forced tokens at a join: <Conclusion> ⏎.
  std::vector<std::int32_t> conclusion_header() const;

  // Bytes of tokens that labels are read from (of digits, ".", ":" or white space only, or starting with ":"), "" for
  // any other token.
  std::string_view label_bytes(std::int32_t token) const;
  // Tokens made of digits, "." and ":" only: what a label in a path's header is written with. The second: those with a
  // ":", which end it.
  bool is_label_token(std::int32_t token) const;
  bool ends_label(std::int32_t token) const;

  // Reads FILE and looks the tokens up; the error names the file and the token that the tokenizer lacks.
  static Result<Dialect> load(const std::string& file, const TokenSource& tokens);
  // The first dialect of DIR/*.json whose tokens the tokenizer has; nullopt where none fits (the model is sequential).
  // A file that is wrong is left out with a warning that says why.
  static Result<std::optional<Dialect>> detect(const std::string& dir, const TokenSource& tokens);

  // Set by load.
  std::function<std::vector<std::int32_t>(std::string_view)> encode;
  std::vector<std::pair<std::int32_t, std::string>> label_table;  // sorted by id
};

}  // namespace multiverse
