#include "model/cuda/tuning_file.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "multiverse/base/check.h"
#include "multiverse/base/log.h"

namespace multiverse {
namespace {

using Json = nlohmann::json;

constexpr std::uintmax_t kMaxBytes = std::uintmax_t{1} << 20;
constexpr std::size_t kMaxEntries = 256;

LayerChoices read_choices(const Json& object) {
  LayerChoices choices;
  for (const auto& [name, letters] : object.items()) choices[name] = letters.get<std::string>();
  return choices;
}

}  // namespace

TuningFile::Entries TuningFile::read() const {
  Entries entries;
  std::error_code missing;
  const std::uintmax_t bytes = std::filesystem::file_size(path_, missing);
  if (missing) return entries;
  try {
    if (bytes > kMaxBytes) throw std::length_error(concat("it has ", bytes, " bytes, more than ", kMaxBytes));
    std::ifstream file(path_, std::ios::binary);
    const Json json = Json::parse(file);
    for (const auto& [key, object] : json.get_ref<const Json::object_t&>()) entries[key] = read_choices(object);
  } catch (const std::exception& failure) {
    log(LogLevel::kWarning, concat("tuning_file '", path_, "' is of no use and will be replaced: ", failure.what()));
    entries.clear();
  }
  return entries;
}

std::optional<LayerChoices> TuningFile::find(const std::string& key) const {
  if (path_.empty()) return std::nullopt;
  const Entries entries = read();
  const auto found = entries.find(key);
  return found == entries.end() ? std::nullopt : std::optional(found->second);
}

void TuningFile::keep(const std::string& key, const LayerChoices& choices) const {
  if (path_.empty()) return;
  Entries entries = read();
  if (entries.size() >= kMaxEntries) entries.clear();  // of cards and models that come and go
  entries[key] = choices;
  const std::string written = concat(path_, ".", ::getpid());
  std::ofstream file(written, std::ios::binary | std::ios::trunc);
  file << Json(entries).dump(1) << "\n";
  file.close();
  std::error_code failed;
  if (file) std::filesystem::rename(written, path_, failed);
  if (file && !failed) return;
  log(LogLevel::kWarning, concat("tuning_file '", path_, "' can't be written: the next start measures again"));
  std::filesystem::remove(written, failed);
}

}  // namespace multiverse
