#include "model/cuda/cuda_weights.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "multiverse/kernels/cuda/layers.h"

#include "model/weight_source.h"

namespace multiverse {
namespace {

using kernels::cuda::Bf16;

constexpr std::int64_t kStagingBytes = std::int64_t{64} << 20;
constexpr std::int64_t kBlock = 8;  // rows of a fused matrix that stand together, before as many of their partners

// The order in which a tensor's rows stand in a fused matrix.
enum class RowOrder {
  kPlain,  // one after another
  kGates,  // blocks of 8, each before a block of ups: kernels::cuda::LinearOutput::kSiluMul
  kUps,
  kPairs,  // within each head, 8 rows of its first half, then the 8 of its second half: kernels::cuda::QkvArgs
};

// Rows [0, rows) of the tensor `name` among a fused matrix's rows.
struct Part {
  std::string name;
  std::int64_t rows = 0, first = 0;
  RowOrder order = RowOrder::kPlain;
  std::int64_t head_dim = 0;  // of kPairs

  bool alternates() const { return order == RowOrder::kGates || order == RowOrder::kUps; }
  std::int64_t end() const { return alternates() ? 2 * rows : first + rows; }
  // The part's row that becomes the matrix's row, or -1.
  std::int64_t row_of(std::int64_t row) const {
    const std::int64_t pair = row / (2 * kBlock) * kBlock + row % kBlock;
    const bool is_partner = row / kBlock % 2 == 1;
    if (alternates()) return is_partner == (order == RowOrder::kUps) ? pair : -1;
    if (row < first || row >= first + rows) return -1;
    if (order == RowOrder::kPlain) return row - first;
    const std::int64_t head = (row - first) / head_dim * head_dim, half = head_dim / 2;
    return head + (is_partner ? half : 0) + pair % half;
  }
};

class DeviceLoader {
 public:
  // random: the source that `source` is, where its values are made on the device.
  DeviceLoader(Device& device, const ModelConfig& config, WeightSource& source, const RandomSource* random)
      : device_(device), config_(config), source_(source), random_(random) {
    if (random_ == nullptr) return;
    const auto bytes = static_cast<std::int64_t>(random_->table().size() * sizeof(float));
    table_ = device_.allocate(bytes);
    send(table_.get(), random_->table().data(), bytes);
  }

  Result<DeviceWeights> load() {
    DeviceWeights weights;
    const std::int64_t hidden = config_.hidden_size, vocab = config_.vocab_size;
    check_size("hidden_size", hidden);
    check_size("intermediate_size", config_.intermediate_size);
    weights.embedding = matrix({{"model.embed_tokens.weight", vocab}}, hidden);
    weights.lm_head = config_.tie_word_embeddings ? weights.embedding : matrix({{"lm_head.weight", vocab}}, hidden);
    for (std::int64_t i = 0; i < config_.num_layers && !error_; ++i) {
      weights.layers.push_back(layer(concat("model.layers.", i, ".")));
    }
    weights.final_norm = vector({{"model.norm.weight", hidden}});
    if (error_) return *error_;
    weights.bytes = bytes_;
    return weights;
  }

 private:
  DeviceLayer layer(const std::string& prefix) {
    const std::int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
    const std::int64_t q = config_.num_heads * config_.head_dim, kv = config_.num_kv_heads * config_.head_dim;
    const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
    DeviceLayer out;
    out.attention_norm = vector({{prefix + "input_layernorm.weight", hidden}});
    const auto projection = [&](const char* name, std::int64_t rows, std::int64_t first) {
      return Part{attention + name, rows, first, RowOrder::kPairs, config_.head_dim};
    };
    out.qkv = matrix({projection("q_proj.weight", q, 0), projection("k_proj.weight", kv, q),
                      projection("v_proj.weight", kv, q + kv)},
                     hidden);
    if (config_.qkv_bias) {
      out.qkv_bias = vector({{attention + "q_proj.bias", q},
                             {attention + "k_proj.bias", kv, q},
                             {attention + "v_proj.bias", kv, q + kv}});
    }
    if (config_.qk_norm) {
      out.q_norm = vector({{attention + "q_norm.weight", config_.head_dim}});
      out.k_norm = vector({{attention + "k_norm.weight", config_.head_dim}});
    }
    out.output = matrix({{attention + "o_proj.weight", hidden}}, q);
    if (config_.output_bias) out.output_bias = vector({{attention + "o_proj.bias", hidden}});
    out.mlp_norm = vector({{prefix + "post_attention_layernorm.weight", hidden}});
    out.gate_up = matrix(
        {{mlp + "gate_proj.weight", inner, 0, RowOrder::kGates}, {mlp + "up_proj.weight", inner, 0, RowOrder::kUps}},
        hidden);
    out.down = matrix({{mlp + "down_proj.weight", hidden}}, inner);
    return out;
  }

  void check_size(const char* what, std::int64_t size) {
    if (size % kBlock == 0 || error_) return;
    error_ = invalid_argument(concat(what, " is ", size, "; on a GPU it must be a multiple of ", kBlock), "model");
  }

  void require(const std::string& name, const std::vector<std::int64_t>& shape) {
    if (error_) return;
    if (const Status status = source_.require(name, shape); !status.ok()) error_ = status.error();
  }

  DeviceMatrix matrix(const std::vector<Part>& parts, std::int64_t inputs) {
    DeviceMatrix out;
    std::int64_t outputs = 0;
    for (const Part& part : parts) {
      require(part.name, {part.rows, inputs});
      outputs = std::max(outputs, part.end());
    }
    if (error_) return out;
    out.outputs = static_cast<std::int32_t>(outputs);
    out.inputs = static_cast<std::int32_t>(inputs);
    const std::int64_t bytes = outputs * inputs * std::int64_t{sizeof(Bf16)};
    out.memory = device_.allocate(bytes);
    bytes_ += bytes;
    if (random_ != nullptr) {
      make_random(parts, out);
    } else {
      copy(parts, out);
    }
    return out;
  }

  static std::pair<const Part*, std::int64_t> find(const std::vector<Part>& parts, std::int64_t row) {
    for (const Part& part : parts) {
      if (const std::int64_t found = part.row_of(row); found >= 0) return {&part, found};
    }
    fail_check("every row of a fused matrix has a part", row);
  }
  [[noreturn]] static void fail_check(const char* what, std::int64_t row) {
    CHECK(false, what, "; row ", row, " has none");
    __builtin_unreachable();
  }

  void copy(const std::vector<Part>& parts, const DeviceMatrix& matrix) {
    const std::int64_t row_bytes = std::int64_t{matrix.inputs} * std::int64_t{sizeof(Bf16)};
    const std::int64_t at_once = std::max<std::int64_t>(1, kStagingBytes / row_bytes);
    for (std::int64_t begin = 0; begin < matrix.outputs; begin += at_once) {
      const std::int64_t end = std::min<std::int64_t>(matrix.outputs, begin + at_once);
      auto* to = static_cast<Bf16*>(staging((end - begin) * row_bytes));
      for (std::int64_t row = begin; row < end; ++row, to += matrix.inputs) {
        const auto [part, from] = find(parts, row);
        source_.read_bfloat16(part->name, from * matrix.inputs, matrix.inputs, to);
      }
      send_staging(static_cast<char*>(matrix.memory.get()) + begin * row_bytes, (end - begin) * row_bytes);
    }
  }

  void make_random(const std::vector<Part>& parts, const DeviceMatrix& matrix) {
    std::vector<std::uint32_t> places;
    for (std::int64_t row = 0; row < matrix.outputs; ++row) {
      const auto [part, from] = find(parts, row);
      places.push_back(RandomSource::place(part->name, from * matrix.inputs));
    }
    const auto bytes = static_cast<std::int64_t>(places.size() * sizeof(std::uint32_t));
    const Device::Memory on_device = device_.allocate(bytes);
    send(on_device.get(), places.data(), bytes);
    kernels::cuda::fill_from_table(
        static_cast<const float*>(table_.get()), static_cast<std::int32_t>(random_->table().size()),
        static_cast<const std::uint32_t*>(on_device.get()), static_cast<Bf16*>(matrix.memory.get()), matrix.outputs,
        matrix.inputs, device_.stream());
    device_.synchronize();
  }

  DeviceVector vector(const std::vector<Part>& parts) {
    std::vector<float> values;
    for (const Part& part : parts) {
      require(part.name, {part.rows});
      if (error_) return {};
      values.resize(values.size() + static_cast<std::size_t>(part.rows));
      source_.read(part.name, 0, part.rows, values.data() + part.first);
    }
    const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(float));
    DeviceVector out{device_.allocate(bytes)};
    send(out.memory.get(), values.data(), bytes);
    return out;
  }

  void send(void* to, const void* from, std::int64_t bytes) {
    std::memcpy(staging(bytes), from, static_cast<std::size_t>(bytes));
    send_staging(to, bytes);
  }

  void* staging(std::int64_t bytes) {
    if (bytes > staging_bytes_) {
      staging_ = device_.allocate_pinned(bytes);
      staging_bytes_ = bytes;
    }
    return staging_.get();
  }

  void send_staging(void* to, std::int64_t bytes) {
    device_.upload(to, staging_.get(), bytes);
    device_.synchronize();
  }

  Device& device_;
  const ModelConfig& config_;
  WeightSource& source_;
  const RandomSource* random_;
  Device::Memory table_, staging_;
  std::int64_t staging_bytes_ = 0, bytes_ = 0;
  std::optional<Error> error_;
};

}  // namespace

Result<DeviceWeights> load_device_weights(Device& device, const ModelConfig& config, const std::string& model_dir) {
  Result<Safetensors> files = Safetensors::open_dir(model_dir);
  if (!files.ok()) return files.error();
  FileSource source(files.value(), model_dir);
  Result<DeviceWeights> weights = DeviceLoader(device, config, source, nullptr).load();
  if (!weights.ok()) return weights;
  if (const Status extra = source.refuse_extra(config); !extra.ok()) return extra.error();
  return weights;
}

Result<DeviceWeights> random_device_weights(Device& device, const ModelConfig& config) {
  RandomSource source;
  return DeviceLoader(device, config, source, &source).load();
}

}  // namespace multiverse
