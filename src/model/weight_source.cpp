#include "model/weight_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "multiverse/base/check.h"
#include "multiverse/kernels/linear.h"
#include "multiverse/kernels/philox.h"

namespace multiverse {
namespace {

constexpr std::uint32_t kTable = 1U << 16;
constexpr std::uint64_t kSeed = 20250611;

std::string to_text(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

void round_to_bfloat16(const std::vector<float>& values, std::uint16_t* out) {
  std::transform(values.begin(), values.end(), out, kernels::to_bfloat16);
}

}  // namespace

Status FileSource::require(const std::string& name, const std::vector<std::int64_t>& shape) {
  used_.insert(name);
  const TensorView* view = files_.find(name);
  if (view == nullptr) return invalid_argument(concat(model_dir_, ": the tensor ", name, " is missing"), "model");
  if (view->shape != shape) {
    return invalid_argument(concat(view->file, ": the tensor ", name, " has the shape ", to_text(view->shape),
                                   "; config.json makes it ", to_text(shape)),
                            "model");
  }
  if (view->type == TensorType::kOther) {
    return invalid_argument(
        concat(view->file, ": the tensor ", name, " is of type ", view->type_name, "; known: F32, F16, BF16"), "model");
  }
  return ok_status();
}

const TensorView& FileSource::view(const std::string& name) const {
  const TensorView* view = files_.find(name);
  CHECK(view != nullptr, "read of the tensor ", name, ", which was not required");
  return *view;
}

void FileSource::read(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const {
  view(name).read(begin, count, out);
}

void FileSource::read_bfloat16(const std::string& name, std::int64_t begin, std::int64_t count,
                               std::uint16_t* out) const {
  const TensorView& tensor = view(name);
  if (tensor.type == TensorType::kBFloat16) {
    std::memcpy(out, tensor.data + begin * 2, static_cast<std::size_t>(count) * 2);
    return;
  }
  std::vector<float> values(static_cast<std::size_t>(count));
  tensor.read(begin, count, values.data());
  round_to_bfloat16(values, out);
}

Status FileSource::refuse_extra(const ModelConfig& config) const {
  for (const auto& [name, view] : files_.tensors()) {
    constexpr std::string_view kRotary = ".rotary_emb.inv_freq";
    const bool rotary = name.size() > kRotary.size() && name.ends_with(kRotary);
    if (used_.contains(name) || rotary || (config.tie_word_embeddings && name == "lm_head.weight")) continue;
    return invalid_argument(concat(view.file, ": the tensor ", name, " has no place in ", config.architecture,
                                   " as config.json describes it"),
                            "model");
  }
  return ok_status();
}

RandomSource::RandomSource() : table_(kTable) {
  for (std::uint32_t i = 0; i < kTable; ++i) {  // Box and Muller
    const double radius = std::sqrt(-2.0 * std::log(kernels::philox_uniform(kSeed, 0, 0, i)));
    const double angle = 6.283185307179586 * kernels::philox_uniform(kSeed, 0, 1, i);
    table_[i] = static_cast<float>(0.02 * radius * std::cos(angle));
  }
}

void RandomSource::read(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const {
  if (name.ends_with("norm.weight")) {
    std::fill_n(out, count, 1.0F);
    return;
  }
  std::uint64_t at = place(name, begin);
  for (std::int64_t i = 0; i < count; ++i, ++at) out[i] = table_[at % kTable];
}

void RandomSource::read_bfloat16(const std::string& name, std::int64_t begin, std::int64_t count,
                                 std::uint16_t* out) const {
  std::vector<float> values(static_cast<std::size_t>(count));
  read(name, begin, count, values.data());
  round_to_bfloat16(values, out);
}

std::uint32_t RandomSource::place(const std::string& name, std::int64_t begin) {
  std::uint64_t hash = 0xCBF29CE484222325U;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  hash = (hash ^ static_cast<std::uint64_t>(begin)) * 0x9E3779B97F4A7C15U;
  return static_cast<std::uint32_t>(hash >> 32);
}

}  // namespace multiverse
