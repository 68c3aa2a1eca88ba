// Reading *.safetensors files: mapped, never trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/base/status.h"

namespace multiverse {

enum class TensorType { kFloat32, kFloat16, kBFloat16, kOther };  // kOther: known to the format, not used here

struct TensorView {
  TensorType type = TensorType::kOther;
  std::string type_name;            // as in the file: "BF16"
  std::vector<std::int64_t> shape;  // each ≥ 0; the product fits the bytes
  const std::byte* data = nullptr;  // in the mapping; not aligned
  std::size_t bytes = 0;
  std::string file;

  std::int64_t elements() const;
  // Elements [begin, begin + count) as float32. Not for kOther.
  void read(std::int64_t begin, std::int64_t count, float* out) const;
};

// All tensors of a model's folder. Immutable after open; the views live as long as it. Any thread.
// A file that shrinks while it is mapped kills the process (SIGBUS): don't write to a model in use.
class Safetensors {
 public:
  // model.safetensors.index.json and the shards that it names, else model.safetensors, else the only *.safetensors.
  static Result<Safetensors> open_dir(const std::string& model_dir);
  static Result<Safetensors> open_file(const std::string& file);

  // nullptr where there is none.
  const TensorView* find(std::string_view name) const;
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }

 private:
  class Mapping;
  Status add_file(const std::string& file);

  std::vector<std::shared_ptr<const Mapping>> mappings_;
  std::map<std::string, TensorView, std::less<>> tensors_;
};

}  // namespace multiverse
