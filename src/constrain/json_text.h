// The pieces that JSON texts are made of.
#pragma once

#include <cstdint>
#include <optional>

#include "multiverse/constrain/syntax.h"

namespace multiverse {

// Rules that every JSON syntax uses, added once to a builder.
class JsonText {
 public:
  using Piece = SyntaxBuilder::Piece;
  static constexpr int kAnyDepth = 16;
  static constexpr std::int64_t kMaxWhole = 999'999'999'999'999;  // of whole numbers, 15 digits
  static constexpr std::int64_t kMaxBound = 1'000'000'000;        // of a number's bounds

  explicit JsonText(SyntaxBuilder& builder);

  // Nothing, a space, or a new line with its indentation: bounded, so that a text can't be all white space.
  Piece space() { return builder_.call(space_); }
  Piece string() { return string(0, -1); }
  Piece string(std::int32_t min_length, std::int32_t max_length);  // in code points; max < 0: none
  Piece any_integer();
  Piece any_number();
  Piece boolean() { return builder_.any_of({builder_.text("true"), builder_.text("false")}); }
  Piece null() { return builder_.text("null"); }
  Piece any_value(int depth = kAnyDepth) { return builder_.call(any_value_rule(depth)); }
  Piece any_object(int depth = kAnyDepth);
  Piece any_array(int depth = kAnyDepth);
  // `{` pairs `}` with keys of any text.
  Piece map(std::int32_t value_rule);
  // `[` items `]` from `low` to `high` (< 0: no limit) times.
  Piece list(std::int32_t item_rule, std::int32_t low, std::int32_t high);

  // Whole numbers from `low` to `high`, where given.
  Piece integer(std::optional<std::int64_t> low, std::optional<std::int64_t> high);
  // A bound of a number: whole, and excluded or not.
  struct Bound {
    std::int64_t value = 0;
    bool excluded = false;
  };
  Piece number(std::optional<Bound> low, std::optional<Bound> high);

 private:
  std::int32_t any_value_rule(int depth);
  Piece digits(std::int32_t low, std::int32_t high);
  Piece whole(std::int64_t low, std::int64_t high);
  Piece magnitude(Bound low, Bound high);

  SyntaxBuilder& builder_;
  std::int32_t space_, character_, digit_;
  std::int32_t any_[kAnyDepth + 1];
};

}  // namespace multiverse
