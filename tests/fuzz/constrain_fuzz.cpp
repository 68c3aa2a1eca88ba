// Schemas and patterns of strangers: compiled or refused, within their bounds, and whatever tokens are drawn from the
// masks, a reply that ends is what the constraint says.
#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "multiverse/base/check.h"
#include "multiverse/constrain/compiler.h"

#include "tests/constrain/piece_tokenizer.h"

namespace multiverse::testing {
namespace {

using Kind = ConstraintSpec::Kind;

const PieceTokenizer& tokenizer() {
  static const PieceTokenizer kPieces({"ab",   "12",   "-3",   "00",     "é",    "\xE6\x97", "true",
                                       "null", "{\"",  "\": ", "\", \"", "\"}",  "[[",       "]]",
                                       "}}",   "\n  ", "\\u",  "\\\"",   "name", "\"a\"",    "<tool_call>"});
  return kPieces;
}

// The input: the kind, how many bytes draw tokens, the text, those bytes.
struct Input {
  ConstraintSpec spec;
  std::vector<std::uint8_t> draws;
};

// Without what a JSON string must escape: for a look at the rest.
std::string quotable(std::string text) {
  for (char& byte : text) {
    if (byte == '"' || byte == '\\' || (byte >= 0 && byte < ' ')) byte = ' ';
  }
  return text;
}

Input read_input(const std::uint8_t* data, std::size_t size) {
  Input input;
  if (size < 2) return input;
  const std::size_t draws = std::min<std::size_t>(data[1], size - 2);
  const std::string text(data + 2, data + size - draws);
  if (!nlohmann::json::accept(concat('"', quotable(text), '"'))) return input;  // not UTF-8: the API has parsed it
  input.draws.assign(data + size - draws, data + size);
  switch (data[0] % 4) {
    case 0:
      input.spec = {Kind::kRegex, text};
      break;
    case 1:
      input.spec = {Kind::kJsonSchema, text};
      break;
    default:
      if (!nlohmann::json::accept(text)) return input;  // the API has parsed a tool's parameters
      input.spec = {data[0] % 4 == 2 ? Kind::kToolCalls : Kind::kTextWithToolCalls,
                    tool_calls_text({"<tool_call>\n", "arguments", "\n</tool_call>", 2, {{"f", text}}})};
      break;
  }
  return input;
}

// Draws until the bytes are used up, the reply ends, or the constraint gives up. The reply, where it ended.
bool draw_reply(const Constraint& constraint, const std::vector<std::uint8_t>& draws, std::string& reply) {
  const auto state = constraint.start();
  for (const std::uint8_t draw : draws) {
    const auto mask = state->allowed();
    std::vector<std::int32_t> tokens;
    for (std::int32_t token = 0; token < tokenizer().size(); ++token) {
      const auto bit = static_cast<std::size_t>(token);
      if (mask.empty() || ((mask[bit / 64] >> (bit % 64)) & 1U) != 0) tokens.push_back(token);
    }
    CHECK(!tokens.empty(), "nothing may follow '", reply, "', though it was accepted");
    const std::int32_t token = tokens[draw % tokens.size()];
    if (token == tokenizer().end()) return true;
    reply += tokenizer().token_bytes(token);
    if (!state->accept(token)) return false;
  }
  return false;
}

void check_reply(Kind kind, const std::string& reply) {
  if (kind == Kind::kJsonSchema) CHECK(nlohmann::json::accept(reply), "the reply is not JSON: ", reply);
  if (kind != Kind::kToolCalls) return;
  const std::size_t begin = reply.find("{"), end = reply.find("\n</tool_call>");
  CHECK(begin != std::string::npos && end != std::string::npos, "no call in ", reply);
}

}  // namespace
}  // namespace multiverse::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace multiverse;
  using namespace multiverse::testing;
  static const auto kCompiler = ConstraintCompiler::make(tokenizer(), {}, {tokenizer().end()}, tokenizer().size(), {});
  const Input input = read_input(data, size);
  const auto constraint = kCompiler->compile(input.spec, /*thinking=*/false);
  if (!constraint.ok()) {
    CHECK(constraint.error().code == ErrorCode::kInvalidArgument, constraint.error().message);
    return 0;
  }
  std::string reply;
  if (draw_reply(*constraint.value(), input.draws, reply)) check_reply(input.spec.kind, reply);
  return 0;
}
