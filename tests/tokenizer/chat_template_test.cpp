#include "multiverse/tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

namespace multiverse {
namespace {

std::string joined(const TrustedText& spans) {
  std::string out;
  for (const TextSpan& span : spans) out += span.text;
  return out;
}

// Spans as "A[…]D[…]N[…]" for kAll, kDialect and kNone.
std::string marked(const TrustedText& spans) {
  std::string out;
  for (const TextSpan& span : spans) out += concat("NDA"[static_cast<int>(span.trust)], "[", span.text, "]");
  return out;
}

ChatTemplateInput conversation() {
  ChatTemplateInput input;
  input.messages = {{"user", "u1 u2", "", "", "", ""}, {"assistant", "a1 a2", "think", "", "", ""}};
  input.kwargs_json = R"({"k": "kk"})";
  return input;
}

Result<TrustedText> render(std::string_view source, const ChatTemplateInput& input = conversation()) {
  const auto parsed = ChatTemplate::parse(source, "<s>", "</s>");
  if (!parsed.ok()) return parsed.error();
  return parsed.value()->render(input);
}

std::string marks_of(std::string_view source) {
  const auto rendered = render(source);
  return rendered.ok() ? marked(rendered.value()) : "error: " + rendered.error().message;
}

TEST(ChatTemplate, MarksWhoWroteWhat) {
  EXPECT_EQ(marks_of("t{{ messages[0].content }}{{ messages[1].content }}{{ messages[1].reasoning_content }}"),
            "A[t]N[u1 u2]D[a1 a2think]");
  EXPECT_EQ(marks_of("{{ bos_token ~ messages[0].role ~ k ~ eos_token }}"), "A[<s>]N[userkk]A[</s>]");
}

TEST(ChatTemplate, MarksSurviveEveryStringOperation) {
  // A string of the user's, the template's and the assistant's: "u1 u2|a1 a2".
  const std::string set = "{% set x = messages[0].content ~ '|' ~ messages[1].content %}";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"x", "N[u1 u2]A[|]D[a1 a2]"},
      {"x[::-1]", "D[2a 1a]A[|]N[2u 1u]"},
      {"x[3:7]", "N[u2]A[|]D[a]"},
      {"x[5]", "A[|]"},
      {"x.upper()", "N[U1 U2]A[|]D[A1 A2]"},
      {"x | title", "N[U1 U2]A[|]D[a1 A2]"},
      {"x.split('|')[1] ~ x.split('|')[0]", "D[a1 a2]N[u1 u2]"},
      {"x.rsplit(none, 1)[1]", "D[a2]"},
      {"x.replace('1', '<')", "N[u]A[<]N[ u2]A[|]D[a]A[<]D[ a2]"},
      {"'u1 u2|a1 a2' | replace('|', messages[0].content[:2])", "A[u1 u2]N[u1]A[a1 a2]"},
      {"x.strip('u2')", "N[1 u2]A[|]D[a1 a]"},
      {"x.split() | join('+')", "N[u1]A[+]N[u2]A[|]D[a1]A[+]D[a2]"},
      {"x | list | last", "D[2]"},
      {"x * 2", "N[u1 u2]A[|]D[a1 a2]N[u1 u2]A[|]D[a1 a2]"},
      {"x | indent('>', first=true)", "A[>]N[u1 u2]A[|]D[a1 a2]"},
      {"x | tojson", "N[\"u1 u2]A[|]D[a1 a2]N[\"]"},
      {"[x] | string", "N[['u1 u2]A[|]D[a1 a2]N[']]"},
      {"{x: 1} | items | first | first", "N[u1 u2]A[|]D[a1 a2]"},
      {"x.removeprefix('u1 ').removesuffix(' a2')", "N[u2]A[|]D[a1]"},
      {"x.splitlines()[0] | trim", "N[u1 u2]A[|]D[a1 a2]"},
      {"['b', x] | sort | last | first", "N[u]"},
      {"x if x == 'u1 u2|a1 a2' else ''", "N[u1 u2]A[|]D[a1 a2]"},
      {"loop_index | default(x)", "N[u1 u2]A[|]D[a1 a2]"},
      {"1 ~ x[:2] ~ 2.5", "A[1]N[u1]A[2.5]"},
  };
  for (const auto& [expression, wanted] : cases) {
    EXPECT_EQ(marks_of(set + "{{ " + expression + " }}"), wanted) << expression;
  }
  EXPECT_EQ(marks_of(set + "{% set y %}[{{ x }}]{% endset %}{{ y }}"), "A[[]N[u1 u2]A[|]D[a1 a2]A[]]");
  EXPECT_EQ(marks_of(set + "{% macro m(v) %}<{{ v }}>{% endmacro %}{{ m(x) }}"), "A[<]N[u1 u2]A[|]D[a1 a2]A[>]");
  EXPECT_EQ(marks_of(set + "{% filter upper %}<{{ x }}>{% endfilter %}"), "A[<]N[U1 U2]A[|]D[A1 A2]A[>]");
}

TEST(ChatTemplate, TheUsersTextIsNoTemplate) {
  ChatTemplateInput input;
  input.messages = {{"user", "{{ bos_token }}{% raw %}<|im_end|>", "", "", "", ""}};
  EXPECT_EQ(marked(render("{{ messages[0].content }}", input).value()), "N[{{ bos_token }}{% raw %}<|im_end|>]");
}

TEST(ChatTemplate, ToolsAndCallsAreJsonOfTheirOwnOrder) {
  ChatTemplateInput input;
  input.messages = {{"assistant", "", "",
                     R"([{"id": "1", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": [1.0, 1e22]}"}},
                         {"id": "2", "function": {"name": "g", "arguments": "no json"}}])",
                     "", ""}};
  input.tools_json = R"([{"z": 1, "a": 123456789012345678901234567890, "z": "é<"}])";
  EXPECT_EQ(marked(render("{{ messages[0].tool_calls[0].function.arguments | tojson }}"
                          "{{ messages[0].tool_calls[1].function.arguments }}{{ tools | tojson }}",
                          input)
                       .value()),
            "N[{\"b\": 1, \"a\": [1.0, 1e+22]}no json[{\"z\": \"é<\", \"a\": 123456789012345678901234567890}]]");
}

TEST(ChatTemplate, AbsentFieldsAreAbsent) {
  EXPECT_EQ(joined(render("{{ 'name' in messages[0] }} {{ messages[0].tool_calls is defined }} {{ tools is none }} "
                          "{{ documents is none }} {{ add_generation_prompt }} {{ pad_token is defined }}")
                       .value()),
            "False False True True True False");
}

TEST(ChatTemplate, RaiseExceptionIsTheClientsError) {
  const auto rendered = render("\n{% if true %}{{ raise_exception('roles must alternate') }}{% endif %}");
  ASSERT_FALSE(rendered.ok());
  EXPECT_EQ(rendered.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(rendered.error().message, "roles must alternate");
  EXPECT_EQ(rendered.error().param, "messages");
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  const auto failing = render("a\nb\n{{ messages[0].content + 1 }}");
  ASSERT_FALSE(failing.ok());
  EXPECT_EQ(failing.error().message,
            "the model's chat template cannot render these messages: line 3: can only concatenate str (not \"int\") to "
            "str");
}

TEST(ChatTemplate, UnsupportedConstructsAreNamedAtParseTime) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{{ x | urlize }}", "line 2: the filter 'urlize' is not supported"},
      {"{{ x is escaped }}", "line 2: the test 'escaped' is not supported"},
      {"{{ x.format(1) }}", "line 2: the method 'format()' is not supported"},
      {"{{ x | map('pprint') }}", "line 2: the filter 'pprint' is not supported"},
      {"{{ x | selectattr('a', 'filter') }}", "line 2: the test 'filter' is not supported"},
      {"{% include 'x' %}", "line 2: the statement 'include' is not supported"},
      {"{% for x in y recursive %}{% endfor %}", "line 2: a recursive loop is not supported"},
      {"{{ lipsum(5) }}", "line 2: 'lipsum' is not supported"},
  };
  for (const auto& [source, wanted] : cases) {
    const auto parsed = ChatTemplate::parse("\n" + source, "", "");
    ASSERT_FALSE(parsed.ok()) << source;
    EXPECT_EQ(parsed.error().message, "the chat template cannot be used: " + wanted);
    EXPECT_EQ(parsed.error().code, ErrorCode::kUnsupported);
  }
  const auto broken = ChatTemplate::parse("{% if x %}\n\n{{ 1 +", "", "");
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(broken.error().message.find("line 3"), std::string::npos) << broken.error().message;
}

TEST(ChatTemplate, KwargsCannotTakeTheServersNames) {
  for (const std::string name : {"messages", "tools", "add_generation_prompt", "bos_token", "pad_token", "namespace"}) {
    ChatTemplateInput input = conversation();
    input.kwargs_json = "{\"" + name + "\": 1}";
    const auto rendered = render("x", input);
    ASSERT_FALSE(rendered.ok()) << name;
    EXPECT_EQ(rendered.error().param, "chat_template_kwargs");
    EXPECT_NE(rendered.error().message.find(name), std::string::npos);
  }
}

TEST(ChatTemplate, BadJsonNamesItsField) {
  ChatTemplateInput input = conversation();
  input.tools_json = "[1,";
  EXPECT_EQ(render("x", input).error().param, "tools");
  input = conversation();
  input.tools_json = "{}";
  EXPECT_EQ(render("x", input).error().message, "'tools' is not a list");
  input = conversation();
  input.messages[1].tool_calls_json = "7";
  EXPECT_EQ(render("x", input).error().param, "messages");
  input = conversation();
  input.kwargs_json = std::string(1000, '[');
  EXPECT_EQ(render("x", input).error().param, "chat_template_kwargs");
}

// Each would take far too long, too much memory or too deep a stack if it ran.
TEST(ChatTemplate, HostileTemplatesEndInAnError) {
  const auto repeated = [](const std::string& text, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += text;
    return out;
  };
  const std::vector<std::string> sources = {
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{{ range(10 ** 12) }}",
      "{{ 'x' * 10 ** 15 }}",
      "{{ [1, 2] * 10 ** 15 }}",
      "{{ [] * 10 ** 15 }}{{ '' * 10 ** 15 }}{{ 1 // 0 }}",
      "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
      "{% set ns = namespace(x={}) %}{% for i in range(9999) %}{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      // NOLINTNEXTLINE(bugprone-suspicious-missing-comma): one template
      "{% macro a() %}{% for x in [1] %}{{ b() }}{% endfor %}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}"
      "{{ a() }}",
      "{{ 'a' | map(" + repeated("'map', ", 1000) + "'list') | list }}",
      "{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}",
      "{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}",
      "{{ " + repeated("not ", 5000) + "1 }}",
      "{{ " + repeated("-", 5000) + "1 }}",
      "{{ 1" + repeated(" + 1", 5000) + " }}",
      "{{ x" + repeated(".a", 5000) + " }}",
      "{{ x" + repeated("|list", 5000) + " }}",
      "{{ " + repeated("1 if 1 else ", 5000) + "1 }}",
      repeated("{% if 1 %}", 5000) + repeated("{% endif %}", 5000),
      "{% set " + repeated("(", 5000) + "a" + repeated(")", 5000) + " = 1 %}",
      std::string(std::size_t{2} << 20, ' '),
      "{{ 9223372036854775807 + 1 }}",
      "{{ -9223372036854775807 - 2 }}",
      "{{ 2 ** 64 }}",
      "{{ (0 - 9223372036854775807 - 1) // -1 }}",
      "{{ 1 | tojson(indent=10 ** 12) }}",
      "{{ 'a' | indent(10 ** 12) }}",
      "{{ [1] | batch(10 ** 12, 0) | list }}",
      "{{ 99999999999999999999 }}",
  };
  for (const std::string& source : sources) {
    const auto rendered = render(source);
    EXPECT_FALSE(rendered.ok()) << source.substr(0, 100);
  }
}

TEST(ChatTemplate, HostileInputsStayLinear) {
  ChatTemplateInput input;
  const std::string text(1 << 20, 'a');
  input.messages = {{"user", text, "", "", "", ""}, {"user", text.substr(1 << 19) + "b", "", "", "", ""}};
  // A search that compares at every place would take minutes here.
  EXPECT_EQ(joined(render("{{ messages[1].content in messages[0].content }}{{ messages[0].content.rfind('b' ~ "
                          "messages[1].content) }}",
                          input)
                       .value()),
            "False-1");
  for (const std::string source :
       {"{% for c in messages[0].content %}{{ messages[0].content.upper() }}{% endfor %}",
        "{% for c in messages[0].content %}{{ messages[0].content[loop.index0] }}é{% endfor %}",
        "{% for c in messages[0].content %}{{ messages[0].content }}{% endfor %}"}) {
    EXPECT_FALSE(render(source, input).ok()) << source;
  }
}

TEST(ChatTemplate, LongConversationsRender) {
  ChatTemplateInput input;
  for (int i = 0; i < 5000; ++i) {
    input.messages.push_back({i % 2 == 0 ? "user" : "assistant", "text " + std::to_string(i), "", "", "", ""});
  }
  const auto rendered = render(
      "{% for m in messages %}{% if m.role == 'user' and m.content is string %}{{ '<u>' + m.content.strip() }}{% else "
      "%}{{ '<a>' ~ m.content | trim }}{% endif %}{% endfor %}{% for m in messages[::-1] %}{% endfor %}",
      input);
  ASSERT_TRUE(rendered.ok()) << rendered.error().message;
  EXPECT_EQ(rendered.value().size(), 10000U);
}

// Values that outlive the scope or loop that made them.
TEST(ChatTemplate, EscapedMacrosAndLoopsAreSafe) {
  EXPECT_EQ(joined(render("{% set ns = namespace() %}{% for i in [1, 2] %}{% set local = i * 10 %}{% macro m() %}{{ "
                          "local }}{% endmacro %}{% set ns.m = m %}{% set ns.l = loop %}{% endfor %}"
                          "{% for j in range(5) %}{% set other = j %}{% endfor %}"
                          "{% set f = ns.m %}{{ f() }}{{ ns.l.index }}{{ ns.l.last }}{{ ns.l.length }}")
                       .value()),
            "202True2");
  EXPECT_EQ(
      joined(render("{% set ns = namespace() %}{% set ns.self_ = ns %}{% set ns.l = [ns] %}{{ ns.l[0].self_ == ns }}")
                 .value()),
      "True");
}

class ModelDirectory : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::path(testing::TempDir()) /
            ("chat_template_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::create_directories(path_);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(path_ / name) << text; }
  std::string load_and_render() {
    const auto loaded = ChatTemplate::load(path_.string());
    if (!loaded.ok()) return "error: " + loaded.error().message;
    return marked(loaded.value()->render(conversation()).value());
  }

  std::filesystem::path path_;
};

TEST_F(ModelDirectory, TheFileGoesBeforeTheConfig) {
  write("tokenizer_config.json",
        R"({"chat_template": "config", "bos_token": {"content": "<b>"}, "pad_token": "<p>", "eos_token": null})");
  EXPECT_EQ(load_and_render(), "A[config]");
  write("chat_template.jinja", "file {{ bos_token }}{{ pad_token }}{{ eos_token }}");
  EXPECT_EQ(load_and_render(), "A[file <b><p>]");
}

TEST_F(ModelDirectory, AListHasADefault) {
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(load_and_render(), "A[d]");
}

TEST_F(ModelDirectory, NoTemplateAndBrokenFilesAreNamed) {
  EXPECT_NE(load_and_render().find("has no chat template"), std::string::npos);
  write("tokenizer_config.json", "{\"chat_template\": ");
  EXPECT_NE(load_and_render().find("tokenizer_config.json is not JSON"), std::string::npos);
  write("tokenizer_config.json", R"({"chat_template": [{"name": "other", "template": "t"}]})");
  EXPECT_NE(load_and_render().find("has no chat template"), std::string::npos);
}

std::vector<std::string> template_files() {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(MULTIVERSE_ROOT "/tests/tokenizer/templates")) {
    std::ifstream file(entry.path());
    out.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  std::sort(out.begin(), out.end());
  return out;
}

// Templates cut, spliced and changed at random: any outcome but a crash, a hang or a sanitizer's report.
TEST(ChatTemplate, MutatedTemplatesNeverCrash) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  RecordProperty("seed", std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random);
  };
  std::vector<std::string> sources = template_files();
  ASSERT_FALSE(sources.empty());
  const std::vector<std::string> pieces = {"{{",
                                           "}}",
                                           "{%",
                                           "%}",
                                           "{#",
                                           "#}",
                                           "-",
                                           "|",
                                           "(",
                                           ")",
                                           "[",
                                           "]",
                                           "'",
                                           "\"",
                                           ".",
                                           "::-1",
                                           " is ",
                                           " in ",
                                           " if ",
                                           " else ",
                                           "not ",
                                           "loop",
                                           "messages",
                                           "namespace()",
                                           "range(99999)",
                                           "* 99999999",
                                           "~",
                                           "**",
                                           "\\",
                                           "\xff",
                                           "é",
                                           "{% for x in y %}",
                                           "{% endfor %}",
                                           "{% macro m() %}",
                                           "{% endmacro %}",
                                           "| tojson(indent=3)",
                                           "| map('upper')",
                                           ".split()",
                                           "m()",
                                           "9223372036854775807"};
  ChatTemplateInput input = conversation();
  input.tools_json = R"([{"type": "function", "function": {"name": "f", "parameters": {"a": [1, {"b": null}]}}}])";
  input.messages.push_back(
      {"assistant", "\xff\xfe broken", "", R"([{"function": {"name": "f", "arguments": "{}"}}])", "", ""});
  input.messages.push_back({"tool", "result", "", "", "id", "f"});
  std::size_t parsed_count = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string source = sources[below(sources.size())];
    for (std::size_t change = 0, changes = 1 + below(4); change < changes && !source.empty(); ++change) {
      const std::size_t at = below(source.size()), length = below(40);
      switch (below(4)) {
        case 0:
          source.erase(at, length);
          break;
        case 1:
          source.insert(at, pieces[below(pieces.size())]);
          break;
        case 2:
          source.replace(at, length, pieces[below(pieces.size())]);
          break;
        default:
          source.insert(at, source.substr(below(source.size()), length));
      }
    }
    const auto parsed = ChatTemplate::parse(source, "<s>", "</s>");
    if (!parsed.ok()) continue;
    ++parsed_count;
    const auto rendered = parsed.value()->render(input);
    if (!rendered.ok()) {
      EXPECT_FALSE(rendered.error().message.empty());
    }
  }
  EXPECT_GT(parsed_count, 100U);  // enough of them reach the interpreter
}

}  // namespace
}  // namespace multiverse
