#include "multiverse/config/server_config.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>

#include "multiverse/base/check.h"

#include "config/knob.h"

namespace multiverse {
namespace {

using Json = nlohmann::ordered_json;

// Not knobs, but given the same way.
constexpr std::string_view kConfig = "config", kPrintConfig = "print_config", kHelp = "help";
constexpr std::string_view kPrefix = "MULTIVERSE_", kTestPrefix = "MULTIVERSE_TEST_";
// Variables of the tests and scripts, which start servers too.
constexpr std::string_view kOfTests[] = {"MULTIVERSE_BINARY", "MULTIVERSE_BUILD", "MULTIVERSE_GPU_TESTS"};

bool is_of_tests(std::string_view variable) {
  return variable.substr(0, kTestPrefix.size()) == kTestPrefix ||
         std::find(std::begin(kOfTests), std::end(kOfTests), variable) != std::end(kOfTests);
}

const Knob* find_knob(std::string_view name) {
  const auto& knobs = server_knobs();
  const auto found = std::find_if(knobs.begin(), knobs.end(), [&](const Knob& knob) { return knob.name == name; });
  return found == knobs.end() ? nullptr : &*found;
}

// "; did you mean 'x'?" or where to look.
std::string suggestion(std::string_view name, const std::vector<std::string>& names) {
  const std::string near = nearest(name, names);
  return near.empty() ? std::string("; --help lists what there is") : concat("; did you mean ", near, "?");
}

Error wrong_value(const Knob& knob, std::string_view value, std::string_view place) {
  std::string message =
      concat(place, ": '", value, "' is not allowed for ", knob.name, ", which takes ", allowed(knob));
  if (!knob.example.empty()) message += concat("; for example ", knob.example);
  return invalid_argument(std::move(message), std::string(knob.name));
}

// A file's value as the text that means the same on a command line; nothing where its type fits no knob.
std::optional<std::string> text_of(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean() || value.is_number()) return value.dump();
  if (!value.is_array()) return std::nullopt;
  std::string out;
  for (const Json& item : value) {
    if (!item.is_string()) return std::nullopt;
    out += (out.empty() ? "" : ",") + item.get<std::string>();
  }
  return out;
}

// Whether the JSON type is the knob's own: `"port": "8000"` and `"model": 5` are mistakes, `"kv_cache_bytes": "8G"`
// isn't.
bool type_fits(const Knob& knob, const Json& value) {
  if (std::holds_alternative<std::int64_t ServerConfig::*>(knob.member)) {
    return value.is_number_integer() || (knob.is_bytes && value.is_string());
  }
  if (std::holds_alternative<double ServerConfig::*>(knob.member)) return value.is_number();
  if (is_flag(knob)) return value.is_boolean();
  if (std::holds_alternative<std::string ServerConfig::*>(knob.member)) return value.is_string();
  return value.is_string() || value.is_array();
}

// The file's object. Keys that stand twice are an error: only one of them would count.
Result<Json> parse_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return invalid_argument(concat("cannot read the config file '", path, "'"), "config");
  std::ostringstream stream;
  stream << file.rdbuf();
  const std::string text = stream.str();
  std::set<std::string> keys;
  std::string twice;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::key && depth == 1 && !keys.insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  try {
    Json json = Json::parse(text, watch, /*allow_exceptions=*/true, /*ignore_comments=*/true);
    if (!json.is_object()) return invalid_argument(concat(path, ": not a JSON object"), "config");
    if (!twice.empty()) return invalid_argument(concat(path, ": the key '", twice, "' stands twice"), twice);
    return json;
  } catch (const Json::parse_error& error) {
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(error.byte, text.size()));
    return invalid_argument(concat(path, ": not JSON, at line ", std::count(text.begin(), end, '\n') + 1,
                                   " (a comma too many or missing?)"),
                            "config");
  } catch (const Json::out_of_range&) {
    return invalid_argument(concat(path, ": a number beyond what a double can hold"), "config");
  }
}

Status apply_file(const std::string& path, ServerConfig& config) {
  const Result<Json> parsed = parse_file(path);
  if (!parsed.ok()) return parsed.error();
  for (const auto& [key, value] : parsed.value().items()) {
    const Knob* knob = find_knob(key);
    if (knob == nullptr) {
      return invalid_argument(concat(path, ": unknown key '", key, "'", suggestion(key, server_knob_names())), key);
    }
    if (const auto* open = std::get_if<std::optional<bool> ServerConfig::*>(&knob->member);
        open != nullptr && value.is_null()) {
      config.** open = std::nullopt;
      continue;
    }
    const auto text = text_of(value);
    if (!type_fits(*knob, value) || !text || !set_from_text(*knob, *text, config)) {
      return wrong_value(*knob, value.dump(-1, ' ', false, Json::error_handler_t::replace), path);
    }
  }
  return ok_status();
}

// One `--name value` of the command line, or MULTIVERSE_NAME=value.
struct Setting {
  std::string name;   // as in the file
  std::string value;  // "" for --flag and --no-flag, see `negated`
  std::string place;  // where it stands, for messages
  bool has_value = false, negated = false;
};

std::string underscored(std::string_view flag) {
  std::string out(flag);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

std::vector<std::string> flag_names() {
  std::vector<std::string> out = {"--config", "--print-config", "--help"};
  for (const Knob& knob : server_knobs()) {
    out.push_back(flag_of(knob.name));
    if (is_flag(knob)) out.push_back("--no-" + flag_of(knob.name).substr(2));
  }
  return out;
}

Result<std::vector<Setting>> read_environment(const std::vector<std::string>& environment) {
  std::vector<Setting> out;
  std::vector<std::string> known = {variable_of(kConfig)};
  for (const Knob& knob : server_knobs()) known.push_back(variable_of(knob.name));
  for (const std::string& entry : environment) {
    const std::string variable = entry.substr(0, entry.find('='));
    if (variable.compare(0, kPrefix.size(), kPrefix) != 0) continue;
    if (is_of_tests(variable) || variable.size() == entry.size()) continue;
    if (std::find(known.begin(), known.end(), variable) == known.end()) {
      return invalid_argument(concat("environment: unknown variable ", variable, suggestion(variable, known)),
                              variable);
    }
    std::string name = variable.substr(kPrefix.size());
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return static_cast<char>(std::tolower(c & 0xFF)); });
    out.push_back({name, entry.substr(variable.size() + 1), "environment (" + variable + ")", true, false});
  }
  return out;
}

// The argument at `at`, and its value where that is the next one; `at` goes on to the last one used.
Result<Setting> read_argument(const std::vector<std::string>& arguments, std::size_t& at) {
  const std::string& argument = arguments[at];
  const std::string flag = argument.substr(0, argument.find('='));
  if (flag.compare(0, 2, "--") != 0) {
    return invalid_argument(concat("command line: '", argument, "' belongs to no option; --help lists what there is"));
  }
  const std::vector<std::string> known = flag_names();
  if (std::find(known.begin(), known.end(), flag) == known.end()) {
    return invalid_argument(concat("command line: unknown option ", flag, suggestion(flag, known)), flag);
  }
  Setting out{underscored(flag.substr(2)), "", concat("command line (", flag, ")"), false, false};
  const Knob* knob = find_knob(out.name);
  if (knob == nullptr && out.name.compare(0, 3, "no_") == 0) {
    out.negated = true;
    out.name = out.name.substr(3);
    knob = find_knob(out.name);
  }
  const bool takes_value = out.name == kConfig || (knob != nullptr && !is_flag(*knob));
  if (flag.size() < argument.size()) {
    out.value = argument.substr(flag.size() + 1);
    out.has_value = true;
    if (out.negated || (!takes_value && knob == nullptr)) {
      return invalid_argument(concat("command line: ", flag, " takes no value"), out.name);
    }
  } else if (takes_value) {
    if (at + 1 >= arguments.size()) {
      return invalid_argument(concat("command line: ", flag, " needs a value",
                                     knob != nullptr ? concat(": ", allowed(*knob)) : std::string()),
                              out.name);
    }
    out.value = arguments[++at];
    out.has_value = true;
  }
  return out;
}

Status apply(const Setting& setting, ServerConfig& config) {
  const Knob& knob = *find_knob(setting.name);
  const std::string text = setting.has_value ? setting.value : setting.negated ? "false" : "true";
  if (!set_from_text(knob, text, config)) return wrong_value(knob, text, setting.place);
  return ok_status();
}

std::string folder_name(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

// What no single value shows.
Status check_together(const ServerConfig& config) {
  if (config.weights == "random") {
    if (config.model.empty() && config.config_from.empty()) {
      return invalid_argument("weights random needs --config-from FILE or --model DIR for its shapes", "config_from");
    }
  } else if (!config.config_from.empty()) {
    return invalid_argument("config_from is only for --weights random", "config_from");
  } else if (config.model.empty()) {
    return invalid_argument(
        "no model: give --model DIR, MULTIVERSE_MODEL or the key 'model' of a config file; for "
        "example --model models/multiverse-tiny",
        "model");
  }
  if (config.max_total_paths < config.max_paths) {
    return invalid_argument(concat("max_total_paths is ", config.max_total_paths, ", below max_paths, which is ",
                                   config.max_paths, "; raise the one or lower the other"),
                            "max_total_paths");
  }
  return ok_status();
}

}  // namespace

std::vector<std::string> server_knob_names() {
  std::vector<std::string> out;
  for (const Knob& knob : server_knobs()) out.emplace_back(knob.name);
  return out;
}

std::string to_json(const ServerConfig& config) {
  Json out = Json::object();
  for (const Knob& knob : server_knobs()) {
    std::visit(
        [&](auto member) {
          if constexpr (std::is_same_v<decltype(member), std::optional<bool> ServerConfig::*>) {
            out[std::string(knob.name)] = config.*member ? Json(*(config.*member)) : Json(nullptr);
          } else {
            out[std::string(knob.name)] = config.*member;
          }
        },
        knob.member);
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace);
}

Result<ServeOptions> load_serve_options(const std::vector<std::string>& arguments,
                                        const std::vector<std::string>& environment) {
  ServeOptions options;
  options.help = std::find(arguments.begin(), arguments.end(), flag_of(kHelp)) != arguments.end();
  if (options.help) return options;
  Result<std::vector<Setting>> variables = read_environment(environment);
  if (!variables.ok()) return variables.error();
  std::vector<Setting> settings = std::move(variables).value();
  for (std::size_t at = 0; at < arguments.size(); ++at) {
    Result<Setting> setting = read_argument(arguments, at);
    if (!setting.ok()) return setting.error();
    settings.push_back(std::move(setting).value());
  }

  std::string file;
  for (const Setting& setting : settings) {
    if (setting.name == kConfig) file = setting.value;
    options.print_config |= setting.name == kPrintConfig;
  }
  if (!file.empty()) {
    if (Status status = apply_file(file, options.config); !status.ok()) return status.error();
  }
  for (const Setting& setting : settings) {
    if (setting.name == kConfig || setting.name == kPrintConfig) continue;
    if (Status status = apply(setting, options.config); !status.ok()) return status.error();
  }
  ServerConfig& config = options.config;
  if (config.served_model_name.empty()) {
    const std::string& from = config.model.empty() ? config.weights : config.model;
    if (!config.model.empty() || config.weights == "random") config.served_model_name = {folder_name(from)};
  }
  if (options.print_config) return options;
  if (Status status = check_together(config); !status.ok()) return status.error();
  return options;
}

}  // namespace multiverse
