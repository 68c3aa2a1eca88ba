// Hugging Face `tokenizer.json` (byte-level BPE): text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/tokenizer/span.h"

namespace multiverse {

// Immutable after load; every member function may be called from any thread at once.
class Tokenizer {
 public:
  // Reads DIR/tokenizer.json (and tokenizer_config.json for the template and eos where present). The error names the
  // file and what in it is not supported.
  static Result<std::shared_ptr<const Tokenizer>> load(const std::string& model_dir);

  virtual ~Tokenizer() = default;

  // Ids of `text`, as Hugging Face's encode(text, add_special_tokens=False) where trust is kAll throughout.
  // `dialect_tokens` (ids) are what Trust::kDialect spans may become. One call knows all spans, so merges across the
  // borders of spans are as if the text were one. Invalid UTF-8 bytes are replaced by U+FFFD first. Linear time.
  virtual std::vector<std::int32_t> encode(const TrustedText& text,
                                           const std::vector<std::int32_t>& dialect_tokens) const = 0;
  // The whole text with one trust. kDialect is not meant here.
  std::vector<std::int32_t> encode(std::string_view text, Trust trust) const {
    return encode(TrustedText{{std::string(text), trust}}, {});
  }

  // Raw bytes of one token: what it adds to the text (an added token: its content). "" for an id out of range. The
  // bytes of one token may be part of a UTF-8 sequence.
  virtual std::string_view token_bytes(std::int32_t id) const = 0;
  // Ids of added tokens flagged special ("<|im_end|>"); hidden from text unless asked for.
  virtual bool is_special(std::int32_t id) const = 0;
  // Exact content of a token ("<Parallel>") to its id; added tokens first.
  virtual std::optional<std::int32_t> token_id(std::string_view content) const = 0;
  // Size of the id space: highest id + 1. (A model may have more rows than this.)
  virtual std::int32_t size() const = 0;

  // All tokens' bytes joined, special tokens included; invalid UTF-8 replaced by U+FFFD as Hugging Face's decode does.
  std::string decode(const std::vector<std::int32_t>& ids) const;
};

// Turns a token stream into text pieces that are valid UTF-8 each: bytes of an unfinished sequence are held back until
// it is complete or impossible (then U+FFFD). One per stream, one thread.
class IncrementalDetokenizer {
 public:
  // The text that became certain with these bytes of the next token.
  std::string append(std::string_view token_bytes);
  // The end of the stream: what was held back, as U+FFFD.
  std::string finish();

 private:
  std::string pending_;  // at most 3 bytes
};

}  // namespace multiverse
