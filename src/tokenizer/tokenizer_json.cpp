#include "tokenizer/tokenizer_json.h"

#include <utility>

#include "tokenizer/json_fields.h"
#include "tokenizer/model_json.h"
#include "tokenizer/pattern_syntax.h"

namespace multiverse::tokenizer {
namespace {

constexpr int kDeepestSequence = 8;

std::string type_or_none(const Json& object) {
  const std::string type = type_of(object);
  return type.empty() ? "without a type" : type;
}

// The members of a Sequence, or `object` itself where it is none; those of Sequences in a Sequence too.
Status flatten(const Json& object, std::string_view members, int depth, std::vector<const Json*>& out) {
  if (type_of(object) != "Sequence") {
    out.push_back(&object);
    return ok_status();
  }
  if (depth == kDeepestSequence) return unsupported(concat("a Sequence of ", members, " is nested too deep"));
  const Json& list = field(object, members);
  if (!list.is_array()) return invalid_argument(concat("a Sequence has no list of ", members));
  for (const Json& member : list) {
    Status status = flatten(member, members, depth + 1, out);
    if (!status.ok()) return status;
  }
  return ok_status();
}

Result<bool> parse_normalizer(const Json& normalizer) {
  if (normalizer.is_null()) return false;
  std::vector<const Json*> members;
  if (const Status status = flatten(normalizer, "normalizers", 0, members); !status.ok()) return status.error();
  for (const Json* member : members) {
    if (type_of(*member) != "NFC") {
      return unsupported(concat("normalizer ", type_or_none(*member), " is not supported; supported are null, NFC and ",
                                "Sequences of NFC"));
    }
  }
  return !members.empty();
}

Result<SplitBehavior> parse_behavior(const std::string& name) {
  static constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  for (const auto& [known, behavior] : kBehaviors)
    if (name == known) return behavior;
  return unsupported(concat("Split behavior ", name, " is not known"));
}

Result<SplitStep> parse_split(const Json& split) {
  const Json& pattern = field(split, "pattern");
  const bool is_regex = field(pattern, "Regex").is_string();
  const Result<std::string> source = string_field(pattern, is_regex ? "Regex" : "String", "a Split's pattern");
  if (!source.ok()) return source.error();
  const Result<std::string> name = string_field(split, "behavior", "a Split");
  if (!name.ok()) return name.error();
  const Result<SplitBehavior> behavior = parse_behavior(name.value());
  if (!behavior.ok()) return behavior.error();
  const Result<bool> invert = bool_field(split, "invert", false);
  if (!invert.ok()) return invert.error();
  Result<std::shared_ptr<const SplitPattern>> compiled =
      SplitPattern::compile(is_regex ? source.value() : escape_pattern(source.value()));
  if (!compiled.ok()) return compiled.error();
  return SplitStep{std::move(compiled).value(), behavior.value(), invert.value()};
}

Result<SplitStep> parse_digits(const Json& digits) {
  const Result<bool> individual = bool_field(digits, "individual_digits", false);
  if (!individual.ok()) return individual.error();
  Result<std::shared_ptr<const SplitPattern>> compiled = SplitPattern::compile("\\p{N}");
  if (!compiled.ok()) return compiled.error();
  return SplitStep{std::move(compiled).value(),
                   individual.value() ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false};
}

Status parse_byte_level(const Json& byte_level, PreTokenizer& out) {
  const Result<bool> prefix = bool_field(byte_level, "add_prefix_space", true);
  if (!prefix.ok()) return prefix.error();
  out.add_prefix_space = prefix.value();
  const Result<bool> use_regex = bool_field(byte_level, "use_regex", true);
  if (!use_regex.ok()) return use_regex.error();
  if (!use_regex.value()) return ok_status();
  Result<std::shared_ptr<const SplitPattern>> compiled = SplitPattern::compile(kByteLevelPattern);
  if (!compiled.ok()) return compiled.error();
  out.byte_level_pattern = std::move(compiled).value();
  return ok_status();
}

Result<PreTokenizer> parse_pre_tokenizer(const Json& pre_tokenizer) {
  std::vector<const Json*> members;
  if (const Status status = flatten(pre_tokenizer, "pretokenizers", 0, members); !status.ok()) return status.error();
  PreTokenizer out;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const std::string type = type_of(*members[i]);
    if (type == "ByteLevel" && i + 1 == members.size()) {
      if (const Status status = parse_byte_level(*members[i], out); !status.ok()) return status.error();
      return out;
    }
    if (type != "Split" && type != "Digits") {
      return unsupported(concat("pre_tokenizer ", type_or_none(*members[i]), " (number ", i + 1, ") is not supported;",
                                " supported are Split and Digits, then one ByteLevel as the last"));
    }
    Result<SplitStep> step = type == "Split" ? parse_split(*members[i]) : parse_digits(*members[i]);
    if (!step.ok()) return step.error();
    out.splits.push_back(std::move(step).value());
  }
  return unsupported("the pre_tokenizer has no ByteLevel; supported are byte-level vocabularies only");
}

Status check_decoder(const Json& decoder) {
  std::vector<const Json*> members;
  if (Status status = flatten(decoder, "decoders", 0, members); !status.ok()) return status;
  for (const Json* member : members)
    if (type_of(*member) != "ByteLevel") {
      return unsupported(concat("decoder ", type_or_none(*member), " is not supported; supported is ByteLevel"));
    }
  if (members.size() != 1) return unsupported("the decoder must be one ByteLevel");
  return ok_status();
}

}  // namespace

Result<bool> bool_field(const Json& object, std::string_view name, bool fallback) {
  const Json& value = field(object, name);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) return invalid_argument(concat("field ", name, " must be true or false"));
  return value.get<bool>();
}

Result<std::string> string_field(const Json& object, std::string_view name, std::string_view owner) {
  const Json& value = field(object, name);
  if (!value.is_string()) return invalid_argument(concat(owner, " must have a string ", name));
  return value.get<std::string>();
}

std::string type_of(const Json& object) {
  const Json& type = field(object, "type");
  return type.is_string() ? type.get<std::string>() : "";
}

Result<TokenizerParts> parse_tokenizer_json(std::string_view json) {
  Json root;
  try {
    root = Json::parse(json);
  } catch (const Json::exception& error) {
    return invalid_argument(concat("not valid JSON: ", error.what()));
  }
  if (!root.is_object()) return invalid_argument("the file must hold one JSON object");

  TokenizerParts parts;
  const Json& model_json = field(root, "model");
  Result<BpeData> model = parse_model(model_json);
  if (!model.ok()) return model.error();
  parts.model = std::move(model).value();
  const Result<bool> nfc = parse_normalizer(field(root, "normalizer"));
  if (!nfc.ok()) return nfc.error();
  parts.nfc = nfc.value();
  Result<PreTokenizer> pre_tokenizer = parse_pre_tokenizer(field(root, "pre_tokenizer"));
  if (!pre_tokenizer.ok()) return pre_tokenizer.error();
  parts.pre_tokenizer = std::move(pre_tokenizer).value();
  if (const Status decoder = check_decoder(field(root, "decoder")); !decoder.ok()) return decoder.error();
  Result<std::vector<AddedToken>> added =
      parse_added_tokens(field(root, "added_tokens"), field(model_json, "vocab"), parts.nfc, parts.model);
  if (!added.ok()) return added.error();
  parts.added_tokens = std::move(added).value();
  return parts;
}

}  // namespace multiverse::tokenizer
