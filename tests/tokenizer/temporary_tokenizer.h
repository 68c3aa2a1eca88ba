// A small tokenizer in a temporary folder, and changed copies of its description.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "multiverse/tokenizer/tokenizer.h"

#include "tokenizer/byte_alphabet.h"

namespace multiverse::test {

using Json = nlohmann::json;

// A folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "multiverse-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder: " + name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string path() const { return path_.string(); }
  void write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
  }

 private:
  std::filesystem::path path_;
};

inline Json added_token(int id, const std::string& content, bool special = true) {
  return {{"id", id},        {"content", content}, {"special", special}, {"single_word", false},
          {"lstrip", false}, {"rstrip", false},    {"normalized", false}};
}

// Qwen2's pipeline. Ids: byte b is b; 256 "he", 257 "ll", 258 "hell", 259 "hello", 260 " h", 261 "aa"; then the added
// tokens 262 "<|end|>" and 263 "<Path>".
inline Json small_tokenizer() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[tokenizer::alphabet_character(static_cast<unsigned char>(byte))] = byte;
  int next = 256;
  Json merges = Json::array();
  const std::vector<std::pair<std::string, std::string>> pairs = {{"h", "e"},    {"l", "l"}, {"he", "ll"},
                                                                  {"hell", "o"}, {"Ġ", "h"}, {"a", "a"}};
  for (const auto& [left, right] : pairs) {
    merges.push_back(left + " " + right);
    vocab[left + right] = next++;
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  const Json split = {
      {"type", "Split"},
      {"pattern",
       {{"Regex",
         "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
         "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  return {{"version", "1.0"},
          {"added_tokens", {added_token(next, "<|end|>"), added_token(next + 1, "<Path>")}},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}}},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

inline Result<std::shared_ptr<const Tokenizer>> load_text(const std::string& tokenizer_json) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer_json);
  return Tokenizer::load(folder.path());
}

inline Result<std::shared_ptr<const Tokenizer>> load(const Json& description) {
  return load_text(description.dump());
}

// The error's message; "" where it loads.
inline std::string load_error(const Json& description) {
  const auto loaded = load(description);
  return loaded.ok() ? "" : loaded.error().message;
}

}  // namespace multiverse::test
