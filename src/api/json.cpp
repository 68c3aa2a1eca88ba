#include "api/json.h"

#include <utility>
#include <vector>

namespace multiverse {
namespace {

// Builds the value while reading, so that limits hold before memory is spent.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return add(Json(nullptr)) != nullptr; }
  bool boolean(bool value) override { return add(Json(value)) != nullptr; }
  bool number_integer(number_integer_t value) override { return add(Json(value)) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return add(Json(value)) != nullptr; }
  bool number_float(number_float_t value, const string_t& /*digits*/) override { return add(Json(value)) != nullptr; }
  bool string(string_t& value) override { return add(Json(std::move(value))) != nullptr; }
  bool binary(binary_t& /*value*/) override { return fail("binary values are not JSON"); }
  bool start_object(std::size_t /*size*/) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t /*size*/) override { return open(Json::array()); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Json& object = *open_.back();
    if (object.contains(name)) {
      return fail(concat("an object of the request body has the key '", name.substr(0, 64), "' twice"));
    }
    if (object.size() >= kMaxJsonKeys) {
      return fail(
          concat("an object of the request body has more than ", kMaxJsonKeys, " keys, at most that many are read"));
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    // 406: a number that no double holds.
    const char* what = error.id == 406 ? "has a number out of range" : "is not valid JSON";
    return fail(concat("the request body ", what, " (at byte ", position, ")"));
  }

  Result<Json> take() {
    if (!error_.empty()) return invalid_argument(error_);
    return std::move(root_);
  }

 private:
  bool fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }

  Json* add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  bool open(Json value) {
    if (open_.size() >= kMaxJsonDepth) {
      return fail(concat("the request body is nested deeper than ", kMaxJsonDepth, " levels"));
    }
    open_.push_back(add(std::move(value)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Json*> open_;  // arrays and objects being read; stable, as only the innermost one grows
  std::string key_;
  std::string error_;
};

}  // namespace

Result<Json> parse_json(std::string_view text) {
  Builder builder;
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

std::string dump(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace multiverse
