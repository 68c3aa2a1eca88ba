// Files of a model's folder from strangers: weights (safetensors), config.json, generation_config.json.
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "multiverse/base/check.h"
#include "multiverse/config/model_config.h"

#include "model/safetensors.h"

namespace multiverse {
namespace {

const std::string& folder() {
  static const std::string kFolder = [] {
    std::string name = (std::filesystem::temp_directory_path() / "multiverse-fuzz-XXXXXX").string();
    CHECK(mkdtemp(name.data()) != nullptr, "no temporary folder ", name);
    return name;
  }();
  return kFolder;
}

// Every byte of every tensor is looked at: ASan tells of those that are not the file's.
void check_weights(const std::string& file) {
  const auto weights = Safetensors::open_file(file);
  if (!weights.ok()) {
    CHECK(!weights.error().message.empty(), "a refusal says nothing");
    return;
  }
  for (const auto& [name, tensor] : weights.value().tensors()) {
    const int sum = std::accumulate(tensor.data, tensor.data + tensor.bytes, 0,
                                    [](int before, std::byte byte) { return before ^ static_cast<int>(byte); });
    CHECK(sum >= 0 && sum < 256, "a byte is none");
    for (const std::int64_t length : tensor.shape) CHECK(length >= 0, "a length of ", length);
  }
}

}  // namespace
}  // namespace multiverse

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace multiverse;
  if (size == 0) return 0;
  const char* name = data[0] % 3 == 0   ? "model.safetensors"
                     : data[0] % 3 == 1 ? "config.json"
                                        : "generation_config.json";
  const std::string file = folder() + "/" + name;
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(data) + 1, static_cast<std::streamsize>(size) - 1);
  if (data[0] % 3 == 0) {
    check_weights(file);
  } else if (data[0] % 3 == 1) {
    const auto config = ModelConfig::load(folder());
    CHECK(config.ok() || !config.error().message.empty(), "a refusal says nothing");
  } else {
    const auto config = GenerationConfig::load(folder());
    CHECK(config.ok() || !config.error().message.empty(), "a refusal says nothing");
  }
  std::filesystem::remove(file);
  return 0;
}
