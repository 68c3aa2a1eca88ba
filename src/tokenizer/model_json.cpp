#include "tokenizer/model_json.h"

#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "tokenizer/byte_alphabet.h"
#include "tokenizer/nfc.h"

namespace multiverse::tokenizer {
namespace {

using Ids = std::unordered_map<std::string_view, std::int32_t>;  // by the name in the file

// Holes among the ids are rare and small in real files.
std::int64_t id_limit(std::size_t token_count) {
  return 2 * static_cast<std::int64_t>(token_count) + 1024;
}

Result<std::int32_t> id_of(const Json& value, std::string_view name, std::size_t token_count) {
  const std::int64_t limit = id_limit(token_count);
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() >= static_cast<std::uint64_t>(limit)) {
    const std::string got = value.is_primitive() ? value.dump(-1, ' ', true) : std::string(value.type_name());
    return invalid_argument(concat("the id of token \"", name, "\" is ", got, "; with ", token_count,
                                   " tokens an id must be a whole number from 0 to ", limit - 1));
  }
  return static_cast<std::int32_t>(value.get<std::uint64_t>());
}

Status check_options(const Json& model) {
  const std::string type = type_of(model);
  if (type != "BPE" && !type.empty()) {
    return unsupported(concat("model type ", type, " is not supported; supported is BPE (byte-level)"));
  }
  const Json& dropout = field(model, "dropout");
  if (!dropout.is_null() && dropout != 0) {
    return unsupported("the model's dropout is set, which makes encoding random; it must be null");
  }
  for (const std::string_view name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json& affix = field(model, name);
    if (!affix.is_null() && affix != Json("")) {
      return unsupported(concat("the model's ", name, " is set, which is not supported"));
    }
  }
  const Result<bool> byte_fallback = bool_field(model, "byte_fallback", false);
  if (!byte_fallback.ok()) return byte_fallback.error();
  if (byte_fallback.value()) return unsupported("the model's byte_fallback is true, which is not supported");
  return ok_status();
}

Result<Ids> read_vocabulary(const Json& vocabulary, BpeData& data) {
  if (!vocabulary.is_object() || vocabulary.empty()) {
    return invalid_argument("the model's vocab must be an object of tokens and their ids");
  }
  Ids ids;
  ids.reserve(vocabulary.size());
  std::vector<const std::string*> name_of;
  for (const auto& [name, value] : vocabulary.items()) {
    const Result<std::int32_t> id = id_of(value, name, vocabulary.size());
    if (!id.ok()) return id.error();
    const auto index = static_cast<std::size_t>(id.value());
    if (index >= name_of.size()) name_of.resize(index + 1, nullptr);
    if (name_of[index] != nullptr) {
      return invalid_argument(concat("tokens \"", *name_of[index], "\" and \"", name, "\" have the same id ", index));
    }
    name_of[index] = &name;
    ids.emplace(name, id.value());
  }
  data.tokens.resize(name_of.size());
  data.in_alphabet.resize(name_of.size(), false);
  for (std::size_t id = 0; id < name_of.size(); ++id) {
    if (name_of[id] == nullptr) continue;
    std::optional<std::string> bytes = bytes_of_alphabet(*name_of[id]);
    data.in_alphabet[id] = bytes.has_value();
    data.tokens[id] = bytes.has_value() ? *std::move(bytes) : *name_of[id];
  }
  return ids;
}

Status set_byte_tokens(const Ids& ids, BpeData& data) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string name = alphabet_character(static_cast<unsigned char>(byte));
    const auto found = ids.find(name);
    const bool in_utf8 = byte != 0xC0 && byte != 0xC1 && byte < 0xF5;
    if (found == ids.end() && in_utf8) {
      return unsupported(concat("the vocab has no token \"", name, "\" for byte ", byte,
                                "; supported are byte-level vocabularies with every byte"));
    }
    data.byte_token[static_cast<std::size_t>(byte)] = found == ids.end() ? -1 : found->second;
  }
  return ok_status();
}

using Parts = std::pair<std::string_view, std::string_view>;

// A merge as "a b" or ["a", "b"].
std::optional<Parts> parts_of(const Json& merge) {
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) return std::nullopt;
    return Parts{text.substr(0, space), text.substr(space + 1)};
  }
  if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) return std::nullopt;
  return Parts{merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
}

Status read_merges(const Json& merges, const Ids& ids, BpeData& data) {
  if (!merges.is_array()) return invalid_argument("the model's merges must be a list");
  data.merges.reserve(merges.size());
  std::string joined;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const Json& merge = merges[rank];
    if (merge.is_string() && merge.get_ref<const std::string&>().rfind("#version", 0) == 0) continue;
    const std::optional<Parts> parts = parts_of(merge);
    if (!parts.has_value()) {
      return invalid_argument(concat("merge ", rank, " is neither \"a b\" nor [\"a\", \"b\"]"));
    }
    joined.assign(parts->first).append(parts->second);
    const std::string_view names[] = {parts->first, parts->second, joined};
    std::int32_t found[3] = {};
    for (std::size_t i = 0; i < 3; ++i) {
      const auto id = ids.find(names[i]);
      if (id == ids.end() || names[i].empty()) {
        return invalid_argument(concat("merge ", rank, " needs token \"", names[i], "\", which the vocab lacks"));
      }
      found[i] = id->second;
    }
    data.merges.push_back({found[0], found[1], found[2]});
  }
  return ok_status();
}

Result<AddedToken> read_added_token(const Json& entry) {
  Result<std::string> content = string_field(entry, "content", "an entry of added_tokens");
  if (!content.ok()) return content.error();
  AddedToken token;
  token.content = std::move(content).value();
  const std::pair<std::string_view, bool*> flags[] = {{"special", &token.special},
                                                      {"single_word", &token.single_word},
                                                      {"lstrip", &token.lstrip},
                                                      {"rstrip", &token.rstrip},
                                                      {"normalized", &token.normalized}};
  for (const auto& [name, target] : flags) {
    const Result<bool> flag = bool_field(entry, name, false);
    if (!flag.ok()) return flag.error();
    *target = flag.value();
  }
  return token;
}

}  // namespace

Result<BpeData> parse_model(const Json& model) {
  if (!model.is_object()) return invalid_argument("there is no model");
  if (const Status options = check_options(model); !options.ok()) return options.error();
  const Result<bool> ignore_merges = bool_field(model, "ignore_merges", false);
  if (!ignore_merges.ok()) return ignore_merges.error();
  BpeData data;
  data.ignore_merges = ignore_merges.value();
  const Result<Ids> ids = read_vocabulary(field(model, "vocab"), data);
  if (!ids.ok()) return ids.error();
  if (const Status bytes = set_byte_tokens(ids.value(), data); !bytes.ok()) return bytes.error();
  if (const Status merges = read_merges(field(model, "merges"), ids.value(), data); !merges.ok()) {
    return merges.error();
  }
  return data;
}

Result<std::vector<AddedToken>> parse_added_tokens(const Json& list, const Json& vocabulary, bool nfc, BpeData& model) {
  std::vector<AddedToken> tokens;
  if (list.is_null()) return tokens;
  if (!list.is_array()) return invalid_argument("added_tokens must be a list");
  std::int64_t next_id = static_cast<std::int64_t>(vocabulary.size());
  std::unordered_set<std::string> contents;  // as searched for, with a mark for normalized ones
  for (const Json& entry : list) {
    Result<AddedToken> read = read_added_token(entry);
    if (!read.ok()) return read.error();
    AddedToken token = std::move(read).value();
    if (token.content.empty()) continue;  // as `tokenizers` does
    const Result<std::int32_t> id = id_of(field(entry, "id"), token.content, vocabulary.size() + list.size());
    if (!id.ok()) return id.error();
    token.id = id.value();
    const auto known = vocabulary.find(token.content);
    const std::int64_t expected = known != vocabulary.end() ? known->get<std::int64_t>() : next_id++;
    if (token.id != expected) {
      return unsupported(concat("added token \"", token.content, "\" has id ", token.id, ", where tokenizers gives ",
                                expected, ": the file contradicts itself"));
    }
    const auto index = static_cast<std::size_t>(token.id);
    if (index >= model.tokens.size()) {
      model.tokens.resize(index + 1);
      model.in_alphabet.resize(index + 1, false);
    }
    if (token.normalized && nfc) token.content = to_nfc(token.content);
    if (!contents.insert((token.normalized ? 'n' : 'p') + token.content).second) {
      return unsupported(concat("added token \"", token.content, "\" is there twice"));
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace multiverse::tokenizer
