// What tokenizer.json may say, and what is refused by name. Hostile files are refused or handled, never worse.
#include <gtest/gtest.h>

#include "temporary_tokenizer.h"

namespace multiverse::test {
namespace {

using testing::Message;

void expect_refused(const Json& description, const std::string& reason) {
  const std::string error = load_error(description);
  EXPECT_NE(error.find(reason), std::string::npos) << "error: " << error;
  EXPECT_NE(error.find("/tokenizer.json: "), std::string::npos) << "error: " << error;
}

// The small tokenizer with one value replaced.
Json changed(const std::string& pointer, const Json& value) {
  Json description = small_tokenizer();
  description[Json::json_pointer(pointer)] = value;
  return description;
}

TEST(LoadTokenizer, MissingFile) {
  const TemporaryFolder folder;
  const auto loaded = Tokenizer::load(folder.path());
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, ErrorCode::kNotFound);
  EXPECT_NE(loaded.error().message.find(folder.path() + "/tokenizer.json"), std::string::npos);
}

TEST(LoadTokenizer, NotJson) {
  EXPECT_FALSE(load_text("").ok());
  EXPECT_FALSE(load_text("{\"model\": ").ok());
  EXPECT_FALSE(load_text("{\"a\": \"\xff\"}").ok());
  for (const char* text : {"null", "[]", "\"x\"", "3", "{}"}) EXPECT_FALSE(load_text(text).ok()) << text;
}

TEST(LoadTokenizer, DeepNesting) {
  const std::string deep(1'000'000, '[');
  EXPECT_FALSE(load_text(deep).ok());
  EXPECT_FALSE(load_text(deep + std::string(deep.size(), ']')).ok());
  Json sequence = {{"type", "NFC"}};
  for (int i = 0; i < 1000; ++i) sequence = {{"type", "Sequence"}, {"normalizers", {sequence}}};
  expect_refused(changed("/normalizer", sequence), "nested too deep");
}

TEST(LoadTokenizer, EachValueOfEachWrongType) {
  // Every value on the way down to the tokens' own fields, replaced by every type: it loads or is refused.
  const Json wrong[] = {nullptr,       true,           -1,       1.5,          1e300, 18446744073709551615u, "x",
                        Json::array(), Json::object(), {1, "a"}, {{"type", 3}}};
  std::vector<std::string> pointers;
  const Json flat = small_tokenizer().flatten();
  for (const auto& [pointer, value] : flat.items()) {
    for (std::string path = pointer; !path.empty(); path.resize(path.rfind('/'))) pointers.push_back(path);
  }
  std::sort(pointers.begin(), pointers.end());
  pointers.erase(std::unique(pointers.begin(), pointers.end()), pointers.end());
  int refused = 0;
  for (const std::string& pointer : pointers) {
    if (pointer.rfind("/model/vocab/", 0) == 0 && pointer != "/model/vocab/h" && pointer != "/model/vocab/hello")
      continue;
    for (const Json& value : wrong) {
      const auto loaded = load(changed(pointer, value));
      refused += loaded.ok() ? 0 : 1;
      if (loaded.ok()) {
        EXPECT_FALSE(loaded.value()->encode("hello <Path> é", Trust::kAll).empty());
      }
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(LoadTokenizer, UnsupportedPartsAreNamed) {
  expect_refused(changed("/model/type", "Unigram"), "Unigram");
  expect_refused(changed("/model/byte_fallback", true), "byte_fallback");
  expect_refused(changed("/model/dropout", 0.1), "dropout");
  expect_refused(changed("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix");
  expect_refused(changed("/model/continuing_subword_prefix", "##"), "continuing_subword_prefix");
  expect_refused(changed("/normalizer", {{"type", "Lowercase"}}), "normalizer Lowercase");
  expect_refused(changed("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "NFKC"}}}}}), "NFKC");
  expect_refused(changed("/pre_tokenizer", {{"type", "Metaspace"}}), "pre_tokenizer Metaspace");
  expect_refused(changed("/pre_tokenizer", nullptr), "pre_tokenizer without a type");
  expect_refused(changed("/pre_tokenizer/pretokenizers/0", {{"type", "Punctuation"}}), "pre_tokenizer Punctuation");
  expect_refused(changed("/pre_tokenizer/pretokenizers/0", {{"type", "ByteLevel"}}), "one ByteLevel as the last");
  expect_refused(changed("/pre_tokenizer/pretokenizers/0/behavior", "Shuffled"), "behavior Shuffled");
  expect_refused(changed("/decoder", {{"type", "WordPiece"}}), "decoder WordPiece");
}

TEST(LoadTokenizer, UnsupportedPatternsAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"a(", "does not compile"},      {"a*", "empty text"},        {"\\bword", "escape \\b"},
      {"[a&&b]", "&& in a class"},     {"[a[bc]]", "class inside"}, {"[[:alpha:]]", "class inside"},
      {"\\p{Letter}+", "not compile"}, {"^a", "anchor ^"},          {"a{1,3}+", "repeat {1,3}+"},
      {"(?<name>a)", "group (?<n"},    {"(?m:a)", "group (?m"},     {"(a)\\1", "escape \\1"},
      {"(?i:ss)", "\"ss\""},           {"(?i:ä)", "beyond ASCII"},  {"(*UTF)a", "(*"},
      {"\\xff", "hexadecimal"},        {"a\\", "escape \\"},        {"[^\\W]", "\\W in a class"},
      {"(?R)a", "group (?R"},          {"[]a]", "empty class"},     {"\\h", "escape \\h"},
  };
  for (const auto& [pattern, reason] : cases) {
    SCOPED_TRACE(Message() << pattern);
    expect_refused(changed("/pre_tokenizer/pretokenizers/0/pattern/Regex", pattern), reason);
  }
}

TEST(LoadTokenizer, Ids) {
  const Json huge = {-1, 1.0, 1'000'000, 4'294'967'295, 4'294'967'296, 9'223'372'036'854'775'807, "0", nullptr};
  for (const Json& id : huge) {
    SCOPED_TRACE(id.dump());
    expect_refused(changed("/model/vocab/he", id), "the id of token \"he\"");
    expect_refused(changed("/added_tokens/0/id", id), "the id of token \"<|end|>\"");
  }
  expect_refused(changed("/model/vocab/he", 257), "have the same id 257");
  expect_refused(changed("/added_tokens/0/id", 300), "tokenizers gives 262");
  expect_refused(changed("/added_tokens/0/id", 5), "tokenizers gives 262");
}

TEST(LoadTokenizer, Merges) {
  for (const Json& merge : std::vector<Json>{"ab", "a b c", "", 3, {"a"}, {"a", "b", "c"}, {1, 2}}) {
    SCOPED_TRACE(merge.dump());
    expect_refused(changed("/model/merges/0", merge), "merge 0");
  }
  expect_refused(changed("/model/merges/0", "h zz"), "needs token \"zz\"");
  expect_refused(changed("/model/merges/0", "e e"), "needs token \"ee\"");
  EXPECT_EQ(load_error(changed("/model/merges/0", {"h", "e"})), "");
  EXPECT_EQ(load_error(changed("/model/merges/0", "#version: 0.2")), "");
}

TEST(LoadTokenizer, BytesWithoutToken) {
  Json description = small_tokenizer();
  description["model"]["vocab"].erase("Q");
  expect_refused(description, "for byte 81");
}

TEST(LoadTokenizer, AddedTokensTwice) {
  Json description = small_tokenizer();
  description["added_tokens"].push_back(added_token(264, "<Path>"));
  expect_refused(description, "there twice");
}

TEST(LoadTokenizer, AMillionAddedTokens) {
  std::string added;
  for (int i = 0; i < 1'000'000; ++i)
    added += concat(i == 0 ? "" : ",", "{\"id\":", 262 + i, ",\"content\":\"<t", i, ">\"}");
  std::string text = changed("/added_tokens", {"HERE"}).dump();
  text.replace(text.find("\"HERE\""), 6, added);
  const auto loaded = load_text(text);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded.value()->size(), 1'000'262);
  EXPECT_EQ(loaded.value()->encode("a<t999999><t12>", Trust::kAll), (std::vector<std::int32_t>{'a', 1'000'261, 274}));
}

TEST(LoadTokenizer, NoPatternCanHang) {
  // Each takes quadratic time or worse on such texts without limits. What they split is not specified then, but the
  // text stays whole.
  const std::string patterns[] = {"(?:\\s|\\s\\s)+\\p{N}|x", "(?:a|b)?\\s+(?=\\p{N})", "(?:a|b)?\\s+(?=\\p{N})|\\s",
                                  "(\\s+)+\\p{N}|[^x]", "\\s*\\s*\\s*\\s*(?=\\p{N})x"};
  const std::string text(200'000, ' ');
  for (const std::string& pattern : patterns) {
    SCOPED_TRACE(pattern);
    const auto loaded = load(changed("/pre_tokenizer/pretokenizers/0/pattern/Regex", pattern));
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    EXPECT_EQ(loaded.value()->decode(loaded.value()->encode(text, Trust::kNone)), text);
  }
}

TEST(LoadTokenizer, RealTokenizers) {
  const std::string root = MULTIVERSE_ROOT;
  int found = 0;
  for (const std::string& dir : {root + "/models/multiverse-tiny", root + "/../shared/tokenizers/multiverse-32b"}) {
    if (!std::filesystem::exists(dir + "/tokenizer.json")) continue;
    ++found;
    const auto loaded = Tokenizer::load(dir);
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    for (const std::string name : {"<Parallel>", "</Goal>", "<Path>", "</Path>", "<Conclusion>", "<|im_end|>"}) {
      const auto id = loaded.value()->token_id(name);
      ASSERT_TRUE(id.has_value()) << name;
      EXPECT_EQ(loaded.value()->encode(name, Trust::kAll), std::vector<std::int32_t>{*id});
      EXPECT_EQ(loaded.value()->token_bytes(*id), name);
      EXPECT_TRUE(loaded.value()->is_special(*id));
    }
    EXPECT_EQ(loaded.value()->encode("\n", Trust::kNone).size(), 1u);
  }
  if (found == 0) GTEST_SKIP() << "no tokenizer of a model in " << root;
}

}  // namespace
}  // namespace multiverse::test
