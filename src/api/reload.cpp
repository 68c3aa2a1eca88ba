#include "multiverse/api/reload.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "api/field_reader.h"
#include "api/json.h"

namespace multiverse {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxPathBytes = 4096;

const char* mode_name(ReloadMode mode) {
  return mode == ReloadMode::kKeep ? "keep" : "recompute";
}

bool is_below(const fs::path& path, const fs::path& root) {
  auto part = path.begin();
  for (const fs::path& of_root : root) {
    if (part == path.end() || *part != of_root) return false;
    ++part;
  }
  return true;
}

Result<std::string> resolve(const std::string& path, const WeightPlaces& places) {
  const auto refused = [&](std::string_view why) {
    return invalid_argument(concat("'path' is '", path.substr(0, 256), "', which ", why,
                                   "; it names a model folder below the folder of --reload-dir"),
                            "path");
  };
  if (path.empty() || path.find('\0') != std::string::npos) return refused("is no name of a folder");
  std::error_code failure;
  const fs::path root = fs::canonical(places.root, failure);
  if (failure) return Error{ErrorCode::kInternal, "the folder of --reload-dir is gone; make it again", "", ""};
  // Outside before missing: whoever asks learns nothing of other folders.
  const fs::path lexical = (root / path).lexically_normal();
  if (!is_below(lexical, root)) return refused("lies elsewhere");
  const fs::path folder = fs::canonical(lexical, failure);
  if (failure) return refused("is not there");
  if (!is_below(folder, root)) return refused("lies elsewhere");
  if (!fs::is_directory(folder, failure)) return refused("is no folder");
  return folder.string();
}

}  // namespace

Result<ReloadRequest> parse_reload_request(std::string_view body, const WeightPlaces& places) {
  const auto parsed = parse_json(body.empty() ? std::string_view("{}") : body);
  if (!parsed.ok()) return parsed.error();
  if (!parsed.value().is_object()) return invalid_argument("the request body is not a JSON object");
  FieldReader fields(parsed.value());
  ReloadRequest request;
  const auto path = fields.text("path", kMaxPathBytes);
  const auto mode = fields.text("mode", 64);
  if (mode == mode_name(ReloadMode::kKeep)) {
    request.mode = ReloadMode::kKeep;
  } else if (mode && *mode != mode_name(ReloadMode::kRecompute)) {
    fields.fail_value("mode", *fields.find("mode"), "'recompute' or 'keep' is wanted");
  }
  std::vector<std::string> unknown;
  fields.collect_unknown(unknown);
  if (!unknown.empty()) {
    fields.fail(
        invalid_argument(concat("'", unknown.front().substr(0, 64), "' is no field of this route; known: path, mode"),
                         unknown.front().substr(0, 64)));
  }
  if (!fields.ok()) return fields.error();
  if (!path) {
    request.model_dir = places.model_dir;
    return request;
  }
  auto folder = resolve(*path, places);
  if (!folder.ok()) return folder.error();
  request.model_dir = std::move(folder).value();
  return request;
}

std::string reload_body(const WeightsReload& reload, ReloadMode mode) {
  return dump({{"weights_version", reload.version},
               {"previous_version", reload.previous},
               {"mode", mode_name(mode)},
               {"requests", reload.requests},
               {"load_seconds", reload.load_seconds},
               {"swap_seconds", reload.swap_seconds}});
}

}  // namespace multiverse
