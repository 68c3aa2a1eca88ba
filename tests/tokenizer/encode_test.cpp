#include <gtest/gtest.h>

#include <random>

#include "temporary_tokenizer.h"

namespace multiverse::test {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kEnd = 262;
constexpr std::int32_t kPath = 263;

std::shared_ptr<const Tokenizer> loaded(const Json& description) {
  auto result = load(description);
  EXPECT_TRUE(result.ok()) << result.error().message;
  return std::move(result).value();
}

class Encode : public testing::Test {
 protected:
  Ids plain(std::string_view text) const { return tokenizer_->encode(text, Trust::kNone); }
  Ids all(std::string_view text) const { return tokenizer_->encode(text, Trust::kAll); }
  std::shared_ptr<const Tokenizer> tokenizer_ = loaded(small_tokenizer());
};

TEST_F(Encode, MergesByRankWithinPieces) {
  EXPECT_EQ(plain(""), Ids{});
  EXPECT_EQ(plain("hello"), Ids{259});
  EXPECT_EQ(plain("hell"), Ids{258});
  EXPECT_EQ(plain("helloll"), (Ids{259, 257}));
  EXPECT_EQ(plain("aaa"), (Ids{261, 'a'}));     // leftmost first
  EXPECT_EQ(plain(" hello"), (Ids{' ', 259}));  // "he" comes before " h"
  EXPECT_EQ(plain(" hall"), (Ids{260, 'a', 257}));
  EXPECT_EQ(plain("a1a"), (Ids{'a', '1', 'a'}));  // the split pattern
}

TEST_F(Encode, LongAndShortPiecesMergeAlike) {
  // The two algorithms meet at 64 bytes.
  for (const std::size_t length : {62u, 63u, 64u, 65u, 66u, 1000u}) {
    Ids expected(length / 2, 261);
    if (length % 2 == 1) expected.push_back('a');
    EXPECT_EQ(plain(std::string(length, 'a')), expected) << length;
  }
}

TEST_F(Encode, NormalisesToNfc) {
  EXPECT_EQ(plain("e\u0301"), plain("é"));
  EXPECT_EQ(plain("\u0344"), plain("\u0308\u0301"));                     // excluded from composition
  EXPECT_EQ(plain("a\u0345\u0301\u0316"), plain("\u00e1\u0316\u0345"));  // order, then composition
  EXPECT_EQ(plain("\u1112\u1161\u11ab"), plain("한"));
  EXPECT_EQ(plain("\u212b"), plain("\u00c5"));
}

TEST_F(Encode, InvalidUtf8BecomesReplacementCharacters) {
  EXPECT_EQ(plain("a\xff\xfe"), plain("a\ufffd\ufffd"));
  EXPECT_EQ(plain("\xe2\x82"), plain("\ufffd"));  // one for the part of a character
  EXPECT_EQ(plain("\xe2\x82z"), plain("\ufffdz"));
  EXPECT_EQ(plain("\xed\xa0\x80"), plain("\ufffd\ufffd\ufffd"));  // a surrogate
  EXPECT_EQ(plain("\xc0\xaf"), plain("\ufffd\ufffd"));            // overlong
  EXPECT_EQ(plain("\xf4\x90\x80\x80"), plain("\ufffd\ufffd\ufffd\ufffd"));
}

TEST_F(Encode, CharactersMayLieAcrossSpans) {
  EXPECT_EQ(tokenizer_->encode({{"\xe6\xbc", Trust::kNone}, {"\xa2", Trust::kAll}}, {}), plain("漢"));
  EXPECT_EQ(tokenizer_->encode({{"e", Trust::kAll}, {"\u0301", Trust::kNone}}, {}), plain("é"));
}

TEST_F(Encode, TrustDecidesWhichAddedTokensAreRecognised) {
  EXPECT_EQ(all("a<|end|>b<Path>"), (Ids{'a', kEnd, 'b', kPath}));
  for (const std::string text : {"<|end|>", "<Path>"}) {
    const Ids ids = plain(text);
    EXPECT_EQ(ids.size(), text.size());
    EXPECT_EQ(tokenizer_->decode(ids), text);
  }
  Ids expected = plain("<|end|>");
  expected.push_back(kPath);
  EXPECT_EQ(tokenizer_->encode({{"<|end|><Path>", Trust::kDialect}}, {kPath}), expected);
}

TEST_F(Encode, AnAddedTokenMustLieWhollyInTrustedText) {
  const Ids text = plain("<|end|>");
  EXPECT_EQ(tokenizer_->encode({{"<|en", Trust::kAll}, {"d|>", Trust::kNone}}, {}), text);
  EXPECT_EQ(tokenizer_->encode({{"<|en", Trust::kNone}, {"d|>", Trust::kAll}}, {}), text);
  EXPECT_EQ(tokenizer_->encode({{"<|en", Trust::kAll}, {"d|>", Trust::kDialect}}, {}), text);
  // Two trusted spans join; so do two of which the less trusted may become the token.
  EXPECT_EQ(tokenizer_->encode({{"<|en", Trust::kAll}, {"d|>", Trust::kAll}}, {}), Ids{kEnd});
  EXPECT_EQ(tokenizer_->encode({{"<Pa", Trust::kAll}, {"th>", Trust::kDialect}}, {kPath}), Ids{kPath});
}

TEST_F(Encode, MergesCrossTheBordersOfSpans) {
  EXPECT_EQ(tokenizer_->encode({{"he", Trust::kAll}, {"ll", Trust::kNone}, {"o", Trust::kDialect}}, {}), Ids{259});
}

TEST_F(Encode, UntrustedTextCannotSwallowTheTokenAfterIt) {
  Json description = small_tokenizer();
  description["added_tokens"].push_back(added_token(264, "x<|end|>y"));
  const auto tokenizer = loaded(description);
  EXPECT_EQ(tokenizer->encode("x<|end|>y", Trust::kAll), Ids{264});
  EXPECT_EQ(tokenizer->encode({{"x", Trust::kNone}, {"<|end|>y", Trust::kAll}}, {}), (Ids{'x', kEnd, 'y'}));
}

TEST_F(Encode, NormalizedTokensKeepTheirTrustThroughNfc) {
  Json description = small_tokenizer();
  Json token = added_token(264, "caf\u00e9", false);
  token["normalized"] = true;
  description["added_tokens"].push_back(token);
  const auto tokenizer = loaded(description);
  EXPECT_EQ(tokenizer->encode("xcafe\u0301x", Trust::kAll), (Ids{'x', 264, 'x'}));
  EXPECT_EQ(tokenizer->encode({{"漢\u0301 ", Trust::kNone}, {"cafe\u0301", Trust::kAll}}, {}).back(), 264);
  // The accent is a user's: no token.
  EXPECT_NE(tokenizer->encode({{"cafe", Trust::kAll}, {"\u0301", Trust::kNone}}, {}).back(), 264);
  EXPECT_EQ(tokenizer->token_bytes(264), "café");
}

TEST_F(Encode, FlagsOfAddedTokens) {
  Json description = small_tokenizer();
  Json& added = description["added_tokens"];
  added.push_back(added_token(264, "<l>"));
  added.back()["lstrip"] = true;
  added.push_back(added_token(265, "<r>"));
  added.back()["rstrip"] = true;
  added.push_back(added_token(266, "cat", false));
  added.back()["single_word"] = true;
  added.push_back(added_token(267, "<r><r>"));
  const auto tokenizer = loaded(description);
  const auto encode = [&](std::string_view text) { return tokenizer->encode(text, Trust::kAll); };
  EXPECT_EQ(encode("a \u3000<l> b"), (Ids{'a', 264, ' ', 'b'}));
  EXPECT_EQ(encode("a <r>\n\t b"), (Ids{'a', ' ', 265, 'b'}));
  EXPECT_EQ(encode("<r>  <l>"), (Ids{265, 264}));
  EXPECT_EQ(encode("<r><r>"), Ids{267});  // the longest
  EXPECT_EQ(encode("cat cat."), (Ids{266, ' ', 266, '.'}));
  EXPECT_EQ(encode("cats"), (Ids{'c', 'a', 't', 's'}));
  EXPECT_EQ(encode("1cat"), (Ids{'1', 'c', 'a', 't'}));
  EXPECT_TRUE(tokenizer->is_special(264));
  EXPECT_FALSE(tokenizer->is_special(266));
}

TEST_F(Encode, IgnoreMergesTakesWholeTokensButNeverSpecialOnes) {
  Json description = small_tokenizer();
  description["model"]["ignore_merges"] = true;
  description["model"]["vocab"]["zzz"] = 262;
  description["model"]["vocab"]["secret"] = 263;
  description["added_tokens"] = {added_token(263, "secret")};
  const auto tokenizer = loaded(description);
  EXPECT_EQ(tokenizer->encode("zzz", Trust::kNone), Ids{262});
  EXPECT_EQ(tokenizer->encode("secret", Trust::kAll), Ids{263});
  EXPECT_EQ(tokenizer->encode("secret", Trust::kNone).size(), 6u);
}

TEST_F(Encode, MergesWhoseRanksFallAreTakenInOrder) {
  // "ab" is made by a merge of higher rank than one that uses it: the queue for rising ranks would be wrong.
  Json description = small_tokenizer();
  description["model"]["vocab"].update({{"bc", 262}, {"ab", 263}, {"abc", 264}});
  description["model"]["merges"] = {"ab c", "a b", "b c"};
  description["added_tokens"] = Json::array();
  const auto tokenizer = loaded(description);
  EXPECT_EQ(tokenizer->encode("abc", Trust::kNone), Ids{264});
  std::string text;
  Ids expected;
  for (int i = 0; i < 100; ++i) {
    text += "abcbc";
    expected.insert(expected.end(), {264, 262});
  }
  EXPECT_EQ(tokenizer->encode(text, Trust::kNone), expected);
}

TEST_F(Encode, LooksTokensUp) {
  EXPECT_EQ(tokenizer_->size(), 264);
  EXPECT_EQ(tokenizer_->token_id("<Path>"), kPath);
  EXPECT_EQ(tokenizer_->token_id("\n"), '\n');
  EXPECT_EQ(tokenizer_->token_id(" h"), 260);
  EXPECT_EQ(tokenizer_->token_id("nothing like it"), std::nullopt);
  EXPECT_EQ(tokenizer_->token_id(""), std::nullopt);
  EXPECT_EQ(tokenizer_->token_bytes(260), " h");
  EXPECT_EQ(tokenizer_->token_bytes(0x80), "\x80");
  EXPECT_EQ(tokenizer_->token_bytes(kEnd), "<|end|>");
  for (const std::int32_t id : {-1, 264, 1 << 30}) {
    EXPECT_EQ(tokenizer_->token_bytes(id), "");
    EXPECT_FALSE(tokenizer_->is_special(id));
  }
  EXPECT_TRUE(tokenizer_->is_special(kEnd));
  EXPECT_FALSE(tokenizer_->is_special(256));
}

TEST_F(Encode, PiecesOfAnyTrustSpellTheText) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::vector<std::string> parts = {"<|end|>", "<Path>", "<|e",    "nd|>", "hello", " ",
                                          "\n",      "漢",     "\u0301", "é",    "a"};
  for (int round = 0; round < 500; ++round) {
    TrustedText spans;
    std::string whole;
    for (std::size_t i = random() % 8; i > 0; --i) {
      const std::string& part = parts[random() % (parts.size() - 2)];
      spans.push_back({part, static_cast<Trust>(random() % 3)});
      whole += part;
    }
    const Ids ids = tokenizer_->encode(spans, {kPath});
    EXPECT_EQ(tokenizer_->decode(ids), tokenizer_->decode(plain(whole)));
    TrustedText trusted = spans;
    for (TextSpan& span : trusted) span.trust = Trust::kAll;
    EXPECT_EQ(tokenizer_->encode(trusted, {}), all(whole));
    for (TextSpan& span : trusted) span.trust = Trust::kNone;
    for (const std::int32_t id : tokenizer_->encode(trusted, {kPath})) EXPECT_LT(id, kEnd);
  }
}

}  // namespace
}  // namespace multiverse::test
