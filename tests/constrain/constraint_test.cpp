// Masks against brute force on finite languages, what random replies look like, what is refused, and the bounds.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>

#include "multiverse/constrain/compiler.h"

#include "constrain/automaton.h"
#include "constrain/json_schema.h"
#include "constrain/regex.h"
#include "tests/constrain/piece_tokenizer.h"

namespace multiverse::testing {
namespace {

using Kind = ConstraintSpec::Kind;

const PieceTokenizer& tokenizer() {
  static const PieceTokenizer pieces({"ab",    "abc",  "ba",   "b",    "12",       "120",  "-3",     "00",   "1.",
                                      ".5",    "e1",   "é",    "日",   "\xE6\x97", "\xA5", "\xA5本", "本日", "true",
                                      "false", "null", "{\"",  "\": ", "\":",      ", \"", "\"}",    "\"]",  "[[",
                                      "]]",    "}}",   "\n  ", "  ",   "\\u",      "\\\"", "\\n",    "name", "\"a\"",
                                      "x1",    "1y",   "tr",   "ue}",  ",\"",      "{}",   "[]"});
  return pieces;
}

std::shared_ptr<const ConstraintCompiler> compiler(ThinkTokens think = {}) {
  return ConstraintCompiler::make(tokenizer(), {}, {tokenizer().end()}, tokenizer().size(), think);
}

std::unique_ptr<ConstraintState> start(const ConstraintSpec& spec) {
  const auto constraint = compiler()->compile(spec, false);
  EXPECT_TRUE(constraint.ok()) << spec.text << ": " << (constraint.ok() ? "" : constraint.error().message);
  return constraint.ok() ? constraint.value()->start() : nullptr;
}

bool has(std::span<const std::uint64_t> mask, std::int32_t token) {
  return ((mask[static_cast<std::size_t>(token) / 64] >> (static_cast<std::uint32_t>(token) % 64U)) & 1U) != 0;
}

std::vector<std::int32_t> allowed_tokens(const ConstraintState& state) {
  std::vector<std::int32_t> tokens;
  for (std::int32_t token = 0; token < tokenizer().size(); ++token) {
    if (has(state.allowed(), token)) tokens.push_back(token);
  }
  return tokens;
}

// A reply of random allowed tokens; nullopt where it did not end within `most` tokens. `look` sees every place.
template <class Look>
std::optional<std::string> random_reply(ConstraintState& state, std::mt19937& random, int most, Look look) {
  std::string text;
  for (int i = 0; i < most; ++i) {
    look(text, state);
    std::vector<std::int32_t> tokens = allowed_tokens(state);
    if (tokens.empty()) {
      ADD_FAILURE() << "nothing may follow " << text;
      return std::nullopt;
    }
    const bool may_end = tokens.back() == tokenizer().end();
    const bool ends = may_end && random() % 2 == 0;
    const std::int32_t token = ends ? tokens.back() : tokens[random() % tokens.size()];
    if (token == tokenizer().end()) return text;
    text += tokenizer().token_bytes(token);
    EXPECT_TRUE(state.accept(token)) << text;
  }
  return std::nullopt;
}

void expect_language(const ConstraintSpec& spec, const std::set<std::string>& language) {
  std::mt19937 random(7);
  std::set<std::string> said;
  const auto is_prefix = [&](const std::string& text) {
    const auto at = language.lower_bound(text);
    return at != language.end() && at->compare(0, text.size(), text) == 0;
  };
  for (int round = 0; round < 60; ++round) {
    const auto state = start(spec);
    ASSERT_NE(state, nullptr);
    const auto text = random_reply(*state, random, 200, [&](const std::string& so_far, const ConstraintState& now) {
      for (std::int32_t token = 0; token < tokenizer().size(); ++token) {
        const bool expected = token == tokenizer().end()
                                  ? language.count(so_far) != 0
                                  : is_prefix(so_far + std::string(tokenizer().token_bytes(token)));
        ASSERT_EQ(has(now.allowed(), token), expected)
            << spec.text << ": after '" << so_far << "' token '" << tokenizer().token_bytes(token) << "'";
      }
    });
    ASSERT_TRUE(text.has_value());
    said.insert(*text);
  }
  EXPECT_GT(said.size(), 1U) << spec.text;
}

// JSON may stand after up to two empty lines, as it does after thoughts.
std::set<std::string> after_lines(const std::set<std::string>& texts) {
  std::set<std::string> all;
  for (const char* lines : {"", "\n", "\n\n"}) {
    for (const std::string& text : texts) all.insert(lines + text);
  }
  return all;
}

TEST(Mask, AgreesWithBruteForceOnRegularExpressions) {
  expect_language({Kind::kRegex, "ab|abc|ba"}, {"ab", "abc", "ba"});
  expect_language({Kind::kRegex, "(a|b){1,3}"},
                  {"a", "b", "aa", "ab", "ba", "bb", "aaa", "aab", "aba", "abb", "baa", "bab", "bba", "bbb"});
  expect_language({Kind::kRegex, "^(?:é|日|日本|本日)$"}, {"é", "日", "日本", "本日"});
  std::set<std::string> numbers;
  for (int i = 0; i < 100; ++i) {
    for (const char* last : {"", "y"}) numbers.insert("x" + std::to_string(i) + last);
  }
  for (int i = 0; i < 10; ++i) {
    for (const char* last : {"", "y"}) numbers.insert("x0" + std::to_string(i) + last);
  }
  expect_language({Kind::kRegex, R"(x\d{1,2}?y?)"}, numbers);
}

TEST(Mask, AgreesWithBruteForceOnJson) {
  expect_language({Kind::kJsonSchema, R"({"enum": ["a", 12, true, null, {"name": [1]}, "é\n"]})"},
                  after_lines({"\"a\"", "12", "true", "null", "{\"name\":[1]}", "\"é\\n\""}));
  expect_language({Kind::kJsonSchema, R"({"type": ["boolean", "null"]})"}, after_lines({"true", "false", "null"}));
  for (const auto& [low, high] :
       std::vector<std::pair<int, int>>{{-37, 1204}, {0, 0}, {7, 19}, {-120, -12}, {99, 101}}) {
    if (low == high) continue;
    std::set<std::string> integers;
    for (int i = low; i <= high; ++i) integers.insert(std::to_string(i));
    const std::string schema = concat(R"({"type": "integer", "minimum": )", low, R"(, "maximum": )", high, "}");
    expect_language({Kind::kJsonSchema, schema}, after_lines(integers));
  }
}

TEST(RandomReplies, KeepBoundsOfNumbers) {
  std::mt19937 random(11);
  struct Case {
    const char* schema;
    double low, high;
    bool low_excluded, high_excluded;
  };
  for (const Case& c : {Case{R"({"type":"number","minimum":0,"maximum":1})", 0, 1, false, false},
                        Case{R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":2})", 0, 2, true, true},
                        Case{R"({"type":"number","minimum":-12,"exclusiveMaximum":-3})", -12, -3, false, true},
                        Case{R"({"type":"number","exclusiveMinimum":-1,"maximum":120})", -1, 120, true, false}}) {
    for (int round = 0; round < 200; ++round) {
      const auto state = start({Kind::kJsonSchema, c.schema});
      const auto text = random_reply(*state, random, 100, [](const auto&, const auto&) {});
      ASSERT_TRUE(text);
      const double value = std::strtod(text->c_str(), nullptr);
      EXPECT_TRUE(c.low_excluded ? value > c.low : value >= c.low) << c.schema << ": " << *text;
      EXPECT_TRUE(c.high_excluded ? value < c.high : value <= c.high) << c.schema << ": " << *text;
    }
  }
}

TEST(RandomReplies, AreJson) {
  std::mt19937 random(13);
  int ended = 0;
  for (int round = 0; round < 150; ++round) {
    const auto state = start({Kind::kJsonObject, ""});
    const auto text = random_reply(*state, random, 400, [](const auto&, const auto&) {});
    if (!text) continue;
    ++ended;
    EXPECT_TRUE(nlohmann::json::accept(*text)) << *text;
  }
  EXPECT_GT(ended, 20);
}

TEST(RandomReplies, ObjectsHaveWhatTheyMust) {
  std::mt19937 random(17);
  const char* schema = R"({"type":"object","properties":{"a":{"type":"boolean"},"name":{"type":"string","maxLength":3},
      "b":{"type":"array","items":{"$ref":"#/$defs/n"},"minItems":1,"maxItems":3}},"required":["name","b"],
      "additionalProperties":false,"$defs":{"n":{"type":"integer","minimum":0,"maximum":9}}})";
  std::set<bool> optional_there;
  for (int round = 0; round < 200; ++round) {
    const auto state = start({Kind::kJsonSchema, schema});
    const auto text = random_reply(*state, random, 400, [](const auto&, const auto&) {});
    ASSERT_TRUE(text);
    const auto value = nlohmann::ordered_json::parse(*text, nullptr, false);
    ASSERT_TRUE(value.is_object()) << *text;
    optional_there.insert(value.contains("a"));
    ASSERT_TRUE(value.contains("name") && value["name"].is_string()) << *text;
    ASSERT_TRUE(value.contains("b") && value["b"].is_array()) << *text;
    EXPECT_GE(value["b"].size(), 1U);
    EXPECT_LE(value["b"].size(), 3U);
    EXPECT_LE(value.size(), 3U);
  }
  EXPECT_EQ(optional_there.size(), 2U);
}

TEST(Refused, RegularExpressionsThatAreNotSupported) {
  for (const char* pattern : {"(?=a)", "(?<!a)b", "(a)\\1", "\\bword", "a**", "a{2,1}", "a{1001}", "(a", "a)", "[a",
                              "[b-a]", "*a", "a{", "\\p{L}", "\\", "(?i)a", "a^b", "a$b", "\\k<x>"}) {
    const auto constraint = compiler()->compile({Kind::kRegex, pattern}, false);
    ASSERT_FALSE(constraint.ok()) << pattern;
    EXPECT_EQ(constraint.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(constraint.error().message.find("regular expression"), std::string::npos) << constraint.error().message;
  }
}

TEST(Refused, SchemasThatCannotBeKept) {
  const std::vector<std::pair<const char*, const char*>> cases{
      {R"({"not": {}})", "'not'"},
      {R"({"type": "array", "uniqueItems": true})", "'uniqueItems'"},
      {R"({"type": "integer", "multipleOf": 3})", "'multipleOf'"},
      {R"({"type": "object", "patternProperties": {}})", "'patternProperties'"},
      {R"({"type": "object", "minProperties": 2})", "'minProperties'"},
      {R"({"type": "object", "properties": {"a": {"if": {}}}})", "#/properties/a has 'if'"},
      {R"({"type": "array", "contains": {}})", "'contains'"},
      {R"({"type": "string", "format": "hostname"})", "format 'hostname'"},
      {R"({"type": "string", "pattern": "a", "maxLength": 3})", "'pattern'"},
      {R"x({"type": "string", "pattern": "(?=a)"})x", "regular expression"},
      {R"({"type": "number", "minimum": 0.5})", "'minimum'"},
      {R"({"type": "string", "maxLength": 100000})", "'maxLength'"},
      {R"({"type": "thing"})", "'type'"},
      {R"({"allOf": [{}, {}]})", "'allOf'"},
      {R"({"oneOf": [{"type": "number"}, {"type": "integer"}]})", "'oneOf'"},
      {R"({"$ref": "https://example.com/schema"})", "'$ref'"},
      {R"({"$ref": "#"})", "leads to itself"},
      {R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})",
       "leads to itself"},
      {R"({"$ref": "#/$defs/missing"})", "no place"},
      {R"({"anyOf": []})", "'anyOf'"},
      {R"({"enum": []})", "'enum'"},
      {R"({"const": 1, "minimum": 3})", "'minimum'"},
      {R"({"type": "array", "prefixItems": [{}], "items": {}})", "prefixItems"},
      {R"({"type": "object", "required": ["a"], "additionalProperties": false})", "nothing satisfies"},
      {R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})", "nothing satisfies"},
      {R"(false)", "nothing satisfies"},
      {R"({"enum": ["a"], "type": "integer"})", "nothing satisfies"},
      {R"([])", "neither an object"},
      {R"({"type": "object")", "not JSON"},
  };
  for (const auto& [schema, why] : cases) {
    const auto constraint = compiler()->compile({Kind::kJsonSchema, schema}, false);
    ASSERT_FALSE(constraint.ok()) << schema;
    EXPECT_NE(constraint.error().message.find(why), std::string::npos) << schema << ": " << constraint.error().message;
  }
}

TEST(Bounds, HugeSchemasAreRefused) {
  std::string values = "1";
  for (int i = 0; i < 10'000; ++i) values += "," + std::to_string(i);
  EXPECT_FALSE(compiler()->compile({Kind::kJsonSchema, "{\"enum\": [" + values + "]}"}, false).ok());
  std::string nested = R"({"type": "boolean"})";
  for (int i = 0; i < 32; ++i) nested = R"({"type":"array","minItems":9000,"items":)" + nested + "}";
  EXPECT_FALSE(compiler()->compile({Kind::kJsonSchema, nested}, false).ok());
  EXPECT_FALSE(
      compiler()
          ->compile({Kind::kRegex, "((((a{1000}){1000}){1000}b|a){1000}){1000}" + std::string(5000, 'a')}, false)
          .ok());
  EXPECT_FALSE(compiler()->compile({Kind::kJsonSchema, std::string(kMaxSchemaBytes, ' ') + "{}"}, false).ok());
}

// Ambiguity costs places, not time without end: a reply goes on, or ends with its limit.
TEST(Bounds, AmbiguousExpressionsStayBounded) {
  for (const char* pattern : {"(a+)+b", "(a|a)*b", "(a*)*b", "(.*a){1,30}", "((a?){50}){20}b", ".*a.{900}"}) {
    const auto constraint = compiler()->compile({Kind::kRegex, pattern}, false);
    if (!constraint.ok()) continue;
    const auto state = constraint.value()->start();
    for (int i = 0; i < 3000; ++i) {
      if (!state->accept('a')) break;
    }
  }
}

TEST(Automaton, AFreshOneTakesUpAState) {
  SyntaxBuilder builder;
  const std::int32_t root = add_json_object(builder);
  const auto syntax = std::make_shared<const Syntax>(builder.take(root));
  const auto vocabulary = std::make_shared<const Vocabulary>(
      tokenizer(), std::vector<std::int32_t>{}, std::vector<std::int32_t>{tokenizer().end()}, tokenizer().size());
  Automaton one(syntax, vocabulary), other(syntax, vocabulary);
  const std::string text = R"({"a": [1, {"b": {"c": [[true, "x"]]}}], "d": null})";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    const std::int32_t here = one.step(one.start(), text.substr(0, cut));
    const std::int32_t there = other.copy_state(one, here);
    const auto expected = one.mask(here), got = other.mask(there);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), got.begin(), got.end())) << text.substr(0, cut);
    EXPECT_TRUE(other.is_end(other.step(there, text.substr(cut))));
  }
}

// Masks take plain characters together; steps don't.
TEST(Automaton, MasksAreWhatStepsSay) {
  const auto vocabulary = std::make_shared<const Vocabulary>(
      tokenizer(), std::vector<std::int32_t>{}, std::vector<std::int32_t>{tokenizer().end()}, tokenizer().size());
  const std::vector<std::pair<ConstraintSpec, std::string>> cases{
      {{Kind::kJsonObject, ""}, R"({"aé": ["日本 x\n", {"": "\u00e9"}]})"},
      {{Kind::kRegex, "(.|\\n)*"}, "ab\n日"},
      {{Kind::kRegex, ".*é[^a]*"}, "abé日x"},
      {{Kind::kRegex, "[ -~é日]*"}, "ab日"},
      {{Kind::kRegex, "[^\"\\\\]{0,4}"}, "a本b"}};
  for (const auto& [spec, text] : cases) {
    SyntaxBuilder builder;
    std::int32_t root = -1;
    if (spec.kind == Kind::kRegex) {
      const auto whole = add_regex(builder, spec.text, RegexUse::kWholeText);
      ASSERT_TRUE(whole.ok()) << spec.text << ": " << whole.error().message;
      root = builder.add_rule(whole.value());
    } else {
      root = add_json_object(builder);
    }
    Automaton automaton(std::make_shared<const Syntax>(builder.take(root)), vocabulary);
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
      const std::int32_t state = automaton.step(automaton.start(), std::string_view(text).substr(0, cut));
      ASSERT_NE(state, Automaton::kDead) << spec.text << ": " << text.substr(0, cut);
      const auto kept = automaton.mask(state);
      const std::vector<std::uint64_t> mask(kept.begin(), kept.end());
      for (std::int32_t token = 0; token < tokenizer().end(); ++token) {
        const bool goes_on = automaton.step(state, tokenizer().token_bytes(token)) != Automaton::kDead;
        ASSERT_EQ(has(mask, token), goes_on) << spec.text << ": " << text.substr(0, cut) << " token " << token;
      }
    }
  }
}

// Ids of the tokenizer stand in for the think tags.
TEST(Thoughts, AreNotGoverned) {
  const ThinkTokens think{256, 257};  // "ab", "abc"
  const auto constraint = compiler(think)->compile({Kind::kRegex, "[12]"}, false);
  ASSERT_TRUE(constraint.ok());
  const auto state = constraint.value()->start();
  EXPECT_TRUE(has(state->allowed(), 256));
  EXPECT_TRUE(has(state->allowed(), '1'));
  EXPECT_FALSE(has(state->allowed(), 'x'));
  EXPECT_TRUE(state->accept(256));
  EXPECT_EQ(allowed_tokens(*state).size(), static_cast<std::size_t>(tokenizer().size()) - 1);
  EXPECT_FALSE(has(state->allowed(), tokenizer().end())) << "the reply would end before what is governed";
  EXPECT_TRUE(state->accept('x'));
  EXPECT_TRUE(state->accept(257));
  EXPECT_TRUE(has(state->allowed(), '2'));
  EXPECT_FALSE(has(state->allowed(), 256));
  EXPECT_TRUE(state->accept('2'));
  EXPECT_EQ(allowed_tokens(*state), std::vector<std::int32_t>{tokenizer().end()});

  const auto plain = constraint.value()->start();
  EXPECT_TRUE(plain->accept('1'));
  EXPECT_FALSE(has(plain->allowed(), 256));
  const auto opened = compiler(think)->compile({Kind::kRegex, "[12]"}, true);
  EXPECT_TRUE(has(opened.value()->start()->allowed(), 'x'));
}

TEST(ToolCalls, AreSaidAsTheTemplateHasThem) {
  ToolSyntax syntax{"<tool_call>\n", "arguments", "\n</tool_call>", 2, {}};
  syntax.tools.push_back({"add", R"({"type":"object","properties":{"x":{"enum":[1,2]}},"required":["x"]})"});
  std::mt19937 random(19);
  std::set<std::size_t> counts;
  for (int round = 0; round < 40; ++round) {
    const auto state = start({Kind::kToolCalls, tool_calls_text(syntax)});
    const auto text = random_reply(*state, random, 400, [](const auto&, const auto&) {});
    ASSERT_TRUE(text);
    std::size_t calls = 0;
    for (std::size_t at = 0; (at = text->find("<tool_call>\n", at)) != std::string::npos; ++calls) {
      at += 12;
      const std::size_t end = text->find("\n</tool_call>", at);
      ASSERT_NE(end, std::string::npos) << *text;
      const auto call = nlohmann::json::parse(text->substr(at, end - at), nullptr, false);
      ASSERT_TRUE(call.is_object()) << *text;
      EXPECT_EQ(call["name"], "add");
      EXPECT_TRUE(call["arguments"]["x"] == 1 || call["arguments"]["x"] == 2) << *text;
    }
    counts.insert(calls);
  }
  EXPECT_EQ(counts, (std::set<std::size_t>{1, 2}));
}

ToolSyntax calls_in_text(const std::string& before) {
  ToolSyntax syntax{before, "arguments", before.empty() ? "" : "\n</tool_call>", 1, {}};
  syntax.tools.push_back({"add", R"({"type":"object","properties":{"x":{"enum":[1,2]}},"required":["x"]})"});
  syntax.tools.push_back({"ask", R"({"type":"object","not":{}})", /*lenient=*/true});
  return syntax;
}

bool say(ConstraintState& state, std::string_view text) {
  bool goes_on = true;
  for (const char c : text) {
    const auto token = static_cast<std::int32_t>(static_cast<std::uint8_t>(c));
    const auto mask = state.allowed();
    goes_on = goes_on && (mask.empty() || has(mask, token)) && state.accept(token);
  }
  return goes_on;
}

bool may_follow(const ConstraintState& state, std::int32_t token) {
  return state.allowed().empty() || has(state.allowed(), token);
}

TEST(CallsInText, AreGovernedOnceTheyHaveBegun) {
  const ConstraintSpec spec{Kind::kTextWithToolCalls, tool_calls_text(calls_in_text("<tool_call>\n"))};
  const auto state = start(spec);
  ASSERT_TRUE(state);
  EXPECT_TRUE(state->allowed().empty()) << "free text costs no mask";
  EXPECT_TRUE(say(*state, "I may say <tool_call> and {\"name\": \"x\"} as I like.<tool_call>\n{\"name\": \""));
  EXPECT_FALSE(may_follow(*state, 'x'));
  EXPECT_FALSE(may_follow(*state, tokenizer().end()));
  EXPECT_TRUE(say(*state, "add\", \"arguments\": {\"x\": "));
  EXPECT_FALSE(may_follow(*state, '3'));
  EXPECT_TRUE(say(*state, "2}}\n</tool_call>"));
  EXPECT_TRUE(state->allowed().empty());
  EXPECT_TRUE(say(*state, " more <tool_call>\n{\"name\": \"ask\", \"arguments\": {\"any\": [1, {}]}}\n</tool_call>"));
  EXPECT_TRUE(may_follow(*state, tokenizer().end()));
}

TEST(CallsInText, TokensThatReachIntoACallFit) {
  // The piece "\"a\"" would complete the trigger and begin a name that no tool has.
  const auto state = start({Kind::kTextWithToolCalls, tool_calls_text(calls_in_text("<tool_call>\n"))});
  EXPECT_TRUE(say(*state, "<tool_call>\n{\"name\": "));
  std::int32_t quoted = -1;
  for (std::int32_t token = 0; token < tokenizer().size(); ++token) {
    if (tokenizer().token_bytes(token) == "\"a\"") quoted = token;
  }
  ASSERT_GE(quoted, 0);
  EXPECT_FALSE(may_follow(*state, quoted));
  EXPECT_TRUE(may_follow(*state, '"'));
  EXPECT_TRUE(may_follow(*state, 'x')) << "then it is no call";
  EXPECT_TRUE(say(*state, "\"a"));
  EXPECT_FALSE(may_follow(*state, '"'));
}

TEST(CallsInText, ControlTokensInterruptATrigger) {
  const std::vector<std::int32_t> hidden{256};  // "ab"
  const auto made = ConstraintCompiler::make(tokenizer(), hidden, {tokenizer().end()}, tokenizer().size(), {257, 258});
  const auto constraint =
      made->compile({Kind::kTextWithToolCalls, tool_calls_text(calls_in_text("<tool_call>\n"))}, false);
  ASSERT_TRUE(constraint.ok());
  const auto state = constraint.value()->start();
  EXPECT_TRUE(may_follow(*state, 256));
  EXPECT_TRUE(say(*state, "<tool_call>\n{\"name\": "));
  EXPECT_TRUE(may_follow(*state, 256));
  EXPECT_TRUE(state->accept(256));
  EXPECT_TRUE(say(*state, "\"x"));
  EXPECT_TRUE(say(*state, "<tool_call>\n{\"name\": \""));
  EXPECT_FALSE(may_follow(*state, 256)) << "a call does not fork";

  const auto thinks = constraint.value()->start();
  EXPECT_TRUE(thinks->accept(257));
  EXPECT_TRUE(say(*thinks, "<tool_call>\n{\"name\": \"nobody")) << "thoughts are free";
  EXPECT_TRUE(thinks->accept(258));
  EXPECT_FALSE(say(*thinks, "<tool_call>\n{\"name\": \"nobody"));
}

TEST(CallsInText, WithoutWordsAroundThemStandAtTheStartAlone) {
  const ConstraintSpec spec{Kind::kTextWithToolCalls, tool_calls_text(calls_in_text(""))};
  EXPECT_TRUE(say(*start(spec), "\n{\"name\": \"add\", \"arguments\": {\"x\": 1}} and so on"));
  EXPECT_FALSE(say(*start(spec), "{\"name\": \"sub\""));
  EXPECT_TRUE(say(*start(spec), "So: {\"name\": \"sub\""));
  EXPECT_TRUE(say(*start(spec), "{\"nam\": 1}"));
}

TEST(CallsInText, ASchemaThatCannotBeKeptIsRefusedWhereItMustBe) {
  ToolSyntax syntax = calls_in_text("<tool_call>\n");
  syntax.tools.back().lenient = false;
  const auto refused = compiler()->compile({Kind::kTextWithToolCalls, tool_calls_text(syntax)}, false);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("tool 'ask'"), std::string::npos) << refused.error().message;
}

// Random text that is led into calls again and again: whatever follows a trigger is a call.
TEST(CallsInText, RandomRepliesHoldWholeCallsOnly) {
  std::mt19937 random(23);
  const std::string trigger = "<tool_call>\n{\"name\": \"";
  std::size_t calls = 0;
  for (int round = 0; round < 40; ++round) {
    const auto state = start({Kind::kTextWithToolCalls, tool_calls_text(calls_in_text("<tool_call>\n"))});
    std::string text;
    for (int i = 0; i < 200; ++i) {
      const std::size_t lead = random() % (trigger.size() + 1);
      if (state->allowed().empty() && random() % 4 == 0) {
        ASSERT_TRUE(say(*state, trigger.substr(0, lead)));
        text += trigger.substr(0, lead);
        continue;
      }
      std::vector<std::int32_t> tokens;
      for (std::int32_t token = 0; token < tokenizer().size(); ++token) {
        if (token != tokenizer().end() && may_follow(*state, token)) tokens.push_back(token);
      }
      ASSERT_FALSE(tokens.empty()) << text;
      const std::int32_t token = tokens[random() % tokens.size()];
      text += tokenizer().token_bytes(token);
      if (!state->accept(token)) break;
    }
    for (std::size_t at = 0; (at = text.find(trigger, at)) != std::string::npos; ++calls) {
      at += 12;
      const std::size_t end = text.find("}\n</tool_call>", at);
      if (end == std::string::npos) break;  // under way
      const auto call = nlohmann::json::parse(text.substr(at, end + 1 - at), nullptr, false);
      ASSERT_TRUE(call.is_object()) << text;
      EXPECT_TRUE(call["name"] == "ask" ||
                  (call["name"] == "add" && (call["arguments"]["x"] == 1 || call["arguments"]["x"] == 2)));
    }
  }
  EXPECT_GT(calls, 20U);
}

}  // namespace
}  // namespace multiverse::testing
