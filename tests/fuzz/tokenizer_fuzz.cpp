// Tokenizer files of strangers, and any text through the tokenizer that ships.
#include <cstdint>
#include <string>
#include <string_view>

#include "multiverse/base/check.h"
#include "multiverse/tokenizer/tokenizer.h"

#include "tokenizer/tokenizer_json.h"

namespace multiverse {
namespace {

void check_encoding(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode({{std::string(text), Trust::kNone}}, {});
  for (const std::int32_t id : ids) {
    CHECK(id >= 0 && id < tokenizer.size(), "token ", id, " is none");
    CHECK(!tokenizer.is_special(id), "a user's text became special token ", id);
  }
  const std::string once = tokenizer.decode(ids);
  CHECK(tokenizer.decode(tokenizer.encode({{once, Trust::kNone}}, {})) == once, "text changes each time it is read");
}

}  // namespace
}  // namespace multiverse

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace multiverse;
  static const auto kShipped = Tokenizer::load(MULTIVERSE_ROOT "/models/multiverse-tiny");
  CHECK(kShipped.ok(), kShipped.error().message);
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    const auto parts = tokenizer::parse_tokenizer_json(text);
    CHECK(parts.ok() || !parts.error().message.empty(), "a refusal says nothing");
  } else {
    check_encoding(*kShipped.value(), text);
  }
  return 0;
}
