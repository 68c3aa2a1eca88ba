#include "commands/places.h"

#include <filesystem>

namespace multiverse {

std::string checkout_dir() {
  std::error_code error;
  const std::filesystem::path binary = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? "." : binary.parent_path().parent_path().parent_path().string();
}

std::string dialects_dir() {
  return checkout_dir() + "/configs/dialects";
}

std::string shipped_model_dir() {
  return checkout_dir() + "/models/multiverse-tiny";
}

Result<std::optional<Dialect>> load_dialect(const std::string& choice, const Tokenizer& tokenizer) {
  if (choice == "off") return std::optional<Dialect>();
  TokenSource source;
  source.token_id = [&tokenizer](std::string_view content) { return tokenizer.token_id(content); };
  source.token_bytes = [&tokenizer](std::int32_t id) { return tokenizer.token_bytes(id); };
  source.encode = [&tokenizer](std::string_view text) { return tokenizer.encode(text, Trust::kNone); };
  source.size = tokenizer.size();
  if (choice == "auto") return Dialect::detect(dialects_dir(), source);
  const std::string shipped = concat(dialects_dir(), "/", choice, ".json");
  const bool is_name = choice.find('/') == std::string::npos && std::filesystem::exists(shipped);
  Result<Dialect> dialect = Dialect::load(is_name ? shipped : choice, source);
  if (!dialect.ok()) return dialect.error();
  return std::optional<Dialect>(std::move(dialect).value());
}

}  // namespace multiverse
