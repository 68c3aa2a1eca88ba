#include "tokenizer/jinja_json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_ops.h"

namespace multiverse::jinja {
namespace {

using Json = nlohmann::json;

// Builds values without a document in between: its objects would lose the order of their keys.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(Trust trust) : trust_(trust) {}

  bool null() override { return add(None{}); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(std::int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return add(static_cast<std::int64_t>(value));
    }
    return add(BigInteger{std::make_shared<const std::string>(std::to_string(value))});
  }
  bool number_float(number_float_t value, const string_t& digits) override {
    // Integers beyond 64 bits arrive here; Python keeps them whole.
    if (digits.find_first_of(".eE") == std::string::npos) {
      return add(BigInteger{std::make_shared<const std::string>(digits)});
    }
    return add(value);
  }
  bool string(string_t& value) override { return add(std::make_shared<const Text>(value, trust_)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(); }
  bool key(string_t& name) override {
    open_.back().keys.emplace_back(std::make_shared<const Text>(name, trust_));
    return true;
  }
  bool end_object() override {
    Level level = close();
    std::vector<std::pair<Value, Value>> entries;
    entries.reserve(level.keys.size());
    for (std::size_t i = 0; i < level.keys.size(); ++i) {
      entries.emplace_back(std::move(level.keys[i]), std::move(level.values[i]));
    }
    return add(make_dict(std::move(entries)));
  }
  bool start_array(std::size_t) override { return open(); }
  bool end_array() override { return add(make_list(std::move(close().values))); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    if (error.empty()) error = concat("is not JSON: the error is at byte ", position);
    return false;
  }

  Value result;
  std::size_t count = 0;
  std::string error;

 private:
  struct Level {
    std::vector<Value> keys, values;
  };

  bool add(Value value) {
    ++count;
    (open_.empty() ? result : open_.back().values.emplace_back()) = std::move(value);
    return true;
  }
  bool open() {
    // One less than a value may have, so that messages and tool calls can hold it.
    if (open_.size() >= kMaxValueDepth - 4) {
      error = concat("is nested more than ", kMaxValueDepth - 4, " deep");
      return false;
    }
    open_.emplace_back();
    return true;
  }
  Level close() {
    Level level = std::move(open_.back());
    open_.pop_back();
    return level;
  }

  Trust trust_;
  std::vector<Level> open_;
};

class Writer {
 public:
  Writer(Budget& budget, const JsonStyle& style) : budget_(budget), style_(style) {}

  void write(const Value& value) {
    budget_.steps(1);
    if (const Text* text = value.text()) return write_string(*text);
    if (const Dict* dict = value.dict()) return write_dict(*dict);
    const Sequence* sequence = value.sequence();
    if (sequence != nullptr && sequence->kind <= SequenceKind::kTuple) return write_list(*sequence);
    plain(scalar(value));
  }
  Text take() { return std::move(out_); }

 private:
  void plain(std::string_view bytes) {
    budget_.bytes(bytes.size());
    out_.append(bytes, Trust::kNone);
  }

  static std::string scalar(const Value& value) {
    if (value.is<None>()) return "null";
    if (value.is<bool>()) return value.as<bool>() ? "true" : "false";
    if (value.is<std::int64_t>()) return std::to_string(value.as<std::int64_t>());
    if (value.is<BigInteger>()) return *value.as<BigInteger>().digits;
    if (value.is<double>()) {
      const double number = value.as<double>();
      if (std::isnan(number)) return "NaN";
      if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
      return float_repr(number);
    }
    if (value.is<Undefined>()) fail("Object of type Undefined is not JSON serializable");
    fail(concat("Object of type ", type_name(value), " is not JSON serializable"));
  }

  void write_string(const Text& text) {
    budget_.bytes(text.size());
    plain("\"");
    const std::string& bytes = text.bytes();
    std::size_t copied = 0;  // up to here bytes stand as they are
    for (std::size_t at = 0; at < bytes.size();) {
      const Character next = char_at(bytes, at);
      const bool escaped =
          next.code < 0x20 || next.code == '"' || next.code == '\\' || (style_.ascii && next.code >= 0x7F);
      if (escaped && (next.code != 0x7F)) {
        out_.append(text, copied, at);
        write_escape(next.code, text.trust_at(at));
        copied = next.end;
      }
      at = next.end;
    }
    out_.append(text, copied, bytes.size());
    plain("\"");
  }

  void write_escape(char32_t code, Trust trust) {
    budget_.bytes(12);
    static constexpr std::string_view kNamed = "\"\\\b\f\n\r\t", kNames = "\"\\bfnrt";
    const std::size_t named = code < 0x80 ? kNamed.find(static_cast<char>(code)) : std::string_view::npos;
    if (named != std::string_view::npos) {
      const char escape[2] = {'\\', kNames[named]};
      return out_.append(std::string_view(escape, 2), trust);
    }
    if (code > 0xFFFF) {  // a surrogate pair
      write_unit(0xD800 + ((code - 0x10000) >> 10), trust);
      return write_unit(0xDC00 + ((code - 0x10000) & 0x3FF), trust);
    }
    write_unit(code, trust);
  }

  void write_unit(char32_t unit, Trust trust) {
    static constexpr char kHex[] = "0123456789abcdef";
    std::string escape = "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) escape += kHex[(unit >> shift) & 15];
    out_.append(escape, trust);
  }

  void line(int level) {
    if (!style_.pretty) return;
    plain("\n");
    for (int i = 0; i < level; ++i) plain(style_.indent);
  }

  void write_list(const Sequence& list) {
    if (list.items.empty()) return plain("[]");
    plain("[");
    ++level_;
    for (std::size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) plain(style_.comma);
      line(level_);
      write(list.items[i]);
    }
    line(--level_);
    plain("]");
  }

  void write_dict(const Dict& dict) {
    if (dict.entries.empty()) return plain("{}");
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return less(budget_, a->first, b->first); });
    }
    plain("{");
    ++level_;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) plain(style_.comma);
      line(level_);
      const Value& key = entries[i]->first;
      write_string(key.text() != nullptr ? *key.text() : Text(scalar(key), Trust::kNone));
      plain(style_.colon);
      write(entries[i]->second);
    }
    line(--level_);
    plain("}");
  }

  Budget& budget_;
  const JsonStyle& style_;
  Text out_;
  int level_ = 0;
};

}  // namespace

JsonValue parse_json(std::string_view text, Trust trust) {
  Builder builder(trust);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    fail(builder.error.empty() ? "is not JSON" : builder.error);
  }
  return {std::move(builder.result), builder.count};
}

Text dump_json(Budget& budget, const Value& value, const JsonStyle& style) {
  Writer writer(budget, style);
  writer.write(value);
  return writer.take();
}

}  // namespace multiverse::jinja
