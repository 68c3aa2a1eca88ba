// Added tokens ("<|im_end|>"): recognised in the text before anything else, as the `tokenizers` library does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace multiverse::tokenizer {

struct AddedToken {
  std::int32_t id = -1;
  std::string content;  // what is searched for; for normalized ones in its normal form
  bool special = false;
  bool single_word = false;  // not where a letter touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool normalized = false;   // searched for in the normalised text
};

// A set of added tokens to search for together. Immutable; any thread.
class AddedTokenSet {
 public:
  // Contents are not empty and differ from each other.
  explicit AddedTokenSet(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }

  // Whether the token may stand at [begin, end) of the text.
  using Permission = std::function<bool(const AddedToken& token, std::size_t begin, std::size_t end)>;
  // A stretch of the text: an added token's, or (id -1) what lies between.
  using Take = std::function<void(std::int32_t id, std::size_t begin, std::size_t end)>;

  // Cuts `text` (valid UTF-8): leftmost match first, the longest of the permitted at a place; a match that touches a
  // letter although single_word is passed over whole. Each byte is looked at at most as often as the longest content
  // is long.
  void split(std::string_view text, const Permission& permitted, const Take& take) const;

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t begin, const Permission& permitted) const;

  std::vector<AddedToken> tokens_;             // by content
  std::array<std::size_t, 257> first_byte_{};  // tokens that begin with byte b: [first_byte_[b], first_byte_[b + 1])
};

}  // namespace multiverse::tokenizer
