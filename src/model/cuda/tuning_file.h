// Which way of computing each linear layer was fastest, kept from one start of the server to the next.
#pragma once

#include <map>
#include <optional>
#include <string>

namespace multiverse {

// By LayerKind's names, a letter for each tuned number of rows; see LinearLayers::choices().
using LayerChoices = std::map<std::string, std::string>;

// One JSON object: what was measured, by what it holds for. A file that is missing, malformed or too large counts as
// empty and is replaced: it can always be measured again, so nothing here is an error. Replaced as a whole, so that
// servers which start together do no harm to each other beyond the loss of an entry.
class TuningFile {
 public:
  // "": none, nothing is found or kept.
  explicit TuningFile(std::string path) : path_(std::move(path)) {}

  // `key` names all that decides what is fastest: card, driver, kernels, shapes.
  std::optional<LayerChoices> find(const std::string& key) const;
  // Warns in the log where the file can't be written.
  void keep(const std::string& key, const LayerChoices& choices) const;

 private:
  using Entries = std::map<std::string, LayerChoices>;
  Entries read() const;

  std::string path_;
};

}  // namespace multiverse
