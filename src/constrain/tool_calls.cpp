#include "constrain/tool_calls.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "multiverse/constrain/compiler.h"

namespace multiverse {
namespace {

using Piece = SyntaxBuilder::Piece;

// The arguments of tools, one rule for tools of the same schema.
class Arguments {
 public:
  explicit Arguments(SyntaxBuilder& builder) : builder_(builder) {}

  Result<std::int32_t> rule(const SchemaJson& tool, bool keep_schema) {
    const std::string text = keep_schema ? tool["schema"].get<std::string>() : R"({"type": "object"})";
    const auto known = rules_.find(text);
    if (known != rules_.end()) return known->second;
    const auto schema = parse_schema(text);
    if (!schema.ok()) return schema.error();
    const auto added = add_json_schema(builder_, schema.value());
    if (!added.ok() && tool["lenient"].get<bool>()) return rule(tool, false);
    if (added.ok()) return rules_.emplace(text, added.value()).first->second;
    Error error = added.error();
    error.message = concat("tool '", tool["name"].get<std::string>(), "': ", error.message);
    return error;
  }

 private:
  SyntaxBuilder& builder_;
  std::map<std::string, std::int32_t> rules_;
};

// A call without the `head` that all of them begin with. `roomy`: all schemas are kept, else those that must be.
Result<Piece> add_call(SyntaxBuilder& builder, const SchemaJson& syntax, const std::string& head, bool roomy = true) {
  std::vector<Piece> ways;
  Arguments all(builder);
  for (const SchemaJson& tool : syntax["tools"]) {
    const auto arguments = all.rule(tool, roomy || !tool["lenient"].get<bool>());
    if (!arguments.ok()) return arguments.error();
    const std::string begin = concat(syntax["before"].get<std::string>(), "{\"name\": ", tool["name"].dump(), ", ",
                                     syntax["arguments_key"].dump(), ": ");
    ways.push_back(
        builder.sequence({builder.text(std::string_view(begin).substr(head.size())), builder.call(arguments.value()),
                          builder.text("}"), builder.text(syntax["after"].get<std::string>())}));
  }
  return builder.any_of(ways);
}

// For each state of the automaton that looks for `word` (so many of its bytes stand at the text's end): the state after
// a byte. Knuth, Morris, Pratt, "Fast pattern matching in strings", 1977.
std::vector<std::array<std::size_t, 256>> word_search(std::string_view word) {
  std::vector<std::array<std::size_t, 256>> next(word.size());
  std::size_t shorter = 0;  // the state of the text without its first byte
  for (std::size_t i = 0; i < word.size(); ++i) {
    const auto byte = static_cast<std::uint8_t>(word[i]);
    if (i == 0) {
      next[0].fill(0);
    } else {
      next[i] = next[shorter];
      shorter = next[shorter][byte];
    }
    next[i][byte] = i + 1;
  }
  return next;
}

// For each state, where nothing may stand before the word but white space: `lost` once it is clear that the text does
// not begin with it.
std::vector<std::array<std::size_t, 256>> word_at_start(std::string_view word, std::size_t lost) {
  std::vector<std::array<std::size_t, 256>> next(word.size());
  for (std::size_t i = 0; i < word.size(); ++i) {
    next[i].fill(lost);
    next[i][static_cast<std::uint8_t>(word[i])] = i + 1;
  }
  for (const char space : std::string_view(" \t\r\n")) next[0][static_cast<std::uint8_t>(space)] = 0;
  return next;
}

void connect_bytes(SyntaxBuilder& builder, const std::array<std::size_t, 256>& next,
                   const std::vector<std::int32_t>& states, std::int32_t from) {
  for (std::size_t low = 0; low < 256;) {
    std::size_t high = low;
    while (high + 1 < 256 && next[high + 1] == next[low]) ++high;
    const Piece bytes = builder.byte(static_cast<std::uint8_t>(low), static_cast<std::uint8_t>(high));
    builder.connect(from, bytes.start);
    builder.connect(bytes.end, states[next[low]]);
    low = high + 1;
  }
}

}  // namespace

Result<SchemaJson> parse_schema(const std::string& text) {
  if (text.size() > kMaxSchemaBytes) {
    return invalid_argument(
        concat("the schema has ", text.size(), " bytes, at most ", kMaxSchemaBytes, " are allowed"));
  }
  SchemaJson schema = SchemaJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (schema.is_discarded()) return invalid_argument("the schema is not JSON");
  return schema;
}

Result<Piece> add_tool_calls(SyntaxBuilder& builder, const std::string& text) {
  const SchemaJson syntax = SchemaJson::parse(text);  // ours
  const auto call = add_call(builder, syntax, "");
  if (!call.ok()) return call.error();
  const std::int32_t one = builder.add_rule(call.value());
  const std::int32_t next = builder.add_rule(builder.sequence({builder.text("\n"), builder.call(one)}));
  return builder.sequence({builder.call(one), builder.times(next, 0, syntax["most"].get<std::int32_t>() - 1)});
}

std::string tool_call_trigger(const std::string& text) {
  return SchemaJson::parse(text)["before"].get<std::string>() + "{\"name\": \"";
}

Result<Piece> add_text_with_tool_calls(SyntaxBuilder& builder, const std::string& text, bool roomy) {
  const SchemaJson syntax = SchemaJson::parse(text);  // ours
  const std::string trigger = tool_call_trigger(text);
  const auto rest = add_call(builder, syntax, trigger, roomy);
  if (!rest.ok()) return rest.error();
  const std::size_t found = trigger.size(), lost = found + 1;
  const bool anywhere = !syntax["before"].get<std::string>().empty();
  std::vector<std::int32_t> states;
  for (std::size_t i = 0; i <= lost; ++i) states.push_back(builder.add_state());
  const std::int32_t end = builder.add_state();
  const auto next = anywhere ? word_search(trigger) : word_at_start(trigger, lost);
  for (std::size_t i = 0; i < found; ++i) connect_bytes(builder, next[i], states, states[i]);
  std::array<std::size_t, 256> stay{};
  stay.fill(lost);
  connect_bytes(builder, stay, states, states[lost]);
  for (std::size_t i = 0; i <= lost; ++i) {
    if (i != found) builder.connect(states[i], end);
  }
  const Piece call = builder.call(builder.add_rule(rest.value()));
  builder.connect(states[found], call.start);
  builder.connect(call.end, states[anywhere ? 0 : lost]);
  return Piece{states[0], end};
}

std::string tool_calls_text(const ToolSyntax& syntax) {
  SchemaJson tools = SchemaJson::array();
  for (const ToolSyntax::Tool& tool : syntax.tools) {
    tools.push_back({{"name", tool.name}, {"schema", tool.schema}, {"lenient", tool.lenient}});
  }
  const SchemaJson text = {{"before", syntax.before},
                           {"arguments_key", syntax.arguments_key},
                           {"after", syntax.after},
                           {"most", syntax.most},
                           {"tools", std::move(tools)}};
  return text.dump();
}

}  // namespace multiverse
