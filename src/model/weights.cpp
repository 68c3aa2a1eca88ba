#include "model/weights.h"

#include <algorithm>

#include "model/safetensors.h"
#include "model/weight_source.h"

namespace multiverse {
namespace {

// Part of a fused matrix: rows [0, rows) of the tensor `name` become the outputs place(row).
struct MatrixPart {
  std::string name;
  std::int64_t rows = 0;
  std::int64_t (*place)(std::int64_t row, std::int64_t first) = nullptr;
  std::int64_t first = 0;
};

std::int64_t in_order(std::int64_t row, std::int64_t first) {
  return first + row;
}
std::int64_t interleaved(std::int64_t row, std::int64_t first) {
  return row / 16 * 32 + row % 16 + first;
}

class Loader {
 public:
  Loader(const ModelConfig& config, WeightSource& source, kernels::WeightType type)
      : config_(config), source_(source), type_(type) {}

  Result<ModelWeights> load() {
    ModelWeights weights;
    const std::int64_t hidden = config_.hidden_size;
    const std::string embedding = "model.embed_tokens.weight";
    if (config_.tie_word_embeddings) {
      matrix(weights.lm_head, {{embedding, config_.vocab_size, in_order, 0}}, hidden, config_.vocab_size);
    } else {
      weights.embedding = rows(embedding, config_.vocab_size, hidden);
      matrix(weights.lm_head, {{"lm_head.weight", config_.vocab_size, in_order, 0}}, hidden, config_.vocab_size);
    }
    for (std::int64_t i = 0; i < config_.num_layers && !error_; ++i) {
      layer(weights.layers.emplace_back(), concat("model.layers.", i, "."));
    }
    vector(weights.final_norm, "model.norm.weight", hidden);
    if (error_) return *error_;
    weights.bytes = bytes_;
    return weights;
  }

 private:
  void layer(LayerWeights& out, const std::string& prefix) {
    const std::int64_t hidden = config_.hidden_size;
    const std::int64_t q = config_.num_heads * config_.head_dim;
    const std::int64_t kv = config_.num_kv_heads * config_.head_dim;
    const std::int64_t inner = config_.intermediate_size;
    const std::string attention = prefix + "self_attn.";
    const std::string mlp = prefix + "mlp.";
    vector(out.attention_norm, prefix + "input_layernorm.weight", hidden);
    matrix(out.qkv,
           {{attention + "q_proj.", q, in_order, 0},
            {attention + "k_proj.", kv, in_order, q},
            {attention + "v_proj.", kv, in_order, q + kv}},
           hidden, q + 2 * kv, config_.qkv_bias);
    if (config_.qk_norm) {
      vector(out.q_norm, attention + "q_norm.weight", config_.head_dim);
      vector(out.k_norm, attention + "k_norm.weight", config_.head_dim);
    }
    matrix(out.output, {{attention + "o_proj.", hidden, in_order, 0}}, q, hidden, config_.output_bias);
    vector(out.mlp_norm, prefix + "post_attention_layernorm.weight", hidden);
    matrix(out.gate_up, {{mlp + "gate_proj.", inner, interleaved, 0}, {mlp + "up_proj.", inner, interleaved, 16}},
           hidden, (inner + 15) / 16 * 32, false);
    matrix(out.down, {{mlp + "down_proj.", hidden, in_order, 0}}, inner, hidden, false);
  }

  // Names that end in "." stand for NAMEweight and, with `bias`, NAMEbias.
  void matrix(LinearWeights& out, const std::vector<MatrixPart>& parts, std::int64_t inputs, std::int64_t outputs,
              bool bias = false) {
    out.matrix = {nullptr, type_, outputs, inputs};
    for (const MatrixPart& part : parts) require(weight_name(part), {part.rows, inputs});
    if (error_) return;
    if (!allocate(out.storage, out.matrix.bytes())) return;
    out.matrix.data = out.storage.data();
    std::vector<float> row_values(static_cast<std::size_t>(inputs));
    for (const MatrixPart& part : parts) {
      for (std::int64_t row = 0; row < part.rows; ++row) {
        source_.read(weight_name(part), row * inputs, inputs, row_values.data());
        kernels::pack_row(out.matrix, out.storage.data(), part.place(row, part.first), row_values.data());
      }
    }
    if (!bias) return;
    out.bias.assign(static_cast<std::size_t>(out.matrix.panels() * kernels::kPanelOutputs), 0.0F);
    for (const MatrixPart& part : parts) {
      std::vector<float> values;
      vector(values, part.name + "bias", part.rows);
      if (error_) return;
      std::copy(values.begin(), values.end(), out.bias.begin() + part.first);
    }
  }

  static std::string weight_name(const MatrixPart& part) {
    return part.name.ends_with(".") ? part.name + "weight" : part.name;
  }

  Buffer rows(const std::string& name, std::int64_t count, std::int64_t columns) {
    Buffer out;
    require(name, {count, columns});
    const bool wide = type_ == kernels::WeightType::kFloat32;
    if (error_ || !allocate(out, static_cast<std::size_t>(count * columns) * (wide ? 4U : 2U))) return out;
    std::vector<float> values(static_cast<std::size_t>(columns));
    for (std::int64_t row = 0; row < count; ++row) {
      if (wide) {
        source_.read(name, row * columns, columns, static_cast<float*>(out.data()) + row * columns);
        continue;
      }
      source_.read(name, row * columns, columns, values.data());
      std::transform(values.begin(), values.end(), static_cast<std::uint16_t*>(out.data()) + row * columns,
                     kernels::to_bfloat16);
    }
    return out;
  }

  void vector(std::vector<float>& out, const std::string& name, std::int64_t size) {
    require(name, {size});
    if (error_) return;
    out.resize(static_cast<std::size_t>(size));
    source_.read(name, 0, size, out.data());
  }

  void require(const std::string& name, const std::vector<std::int64_t>& shape) {
    if (error_) return;
    if (const Status status = source_.require(name, shape); !status.ok()) error_ = status.error();
  }

  bool allocate(Buffer& out, std::size_t bytes) {
    Result<Buffer> buffer = Buffer::allocate(bytes);
    if (!buffer.ok()) {
      error_ = buffer.error();
      return false;
    }
    out = std::move(buffer).value();
    bytes_ += static_cast<std::int64_t>(bytes);
    return true;
  }

  const ModelConfig& config_;
  WeightSource& source_;
  kernels::WeightType type_;
  std::int64_t bytes_ = 0;
  std::optional<Error> error_;
};

Result<kernels::WeightType> weight_type(const std::string& dtype) {
  if (dtype == "bfloat16") return kernels::WeightType::kBFloat16;
  if (dtype == "float32" || dtype == "float16") return kernels::WeightType::kFloat32;
  return invalid_argument(concat("dtype is '", dtype, "'; known: auto, bfloat16, float32"), "dtype");
}

}  // namespace

void ModelWeights::embed(std::int64_t token, float* out) const {
  const std::int64_t hidden = lm_head.matrix.inputs;
  if (!embedding) {
    kernels::unpack_row(lm_head.matrix, token, out);
  } else if (lm_head.matrix.type == kernels::WeightType::kFloat32) {
    const float* row = static_cast<const float*>(embedding->data()) + token * hidden;
    std::copy(row, row + hidden, out);
  } else {
    const std::uint16_t* row = static_cast<const std::uint16_t*>(embedding->data()) + token * hidden;
    std::transform(row, row + hidden, out, kernels::from_bfloat16);
  }
}

Result<ModelWeights> load_weights(const ModelConfig& config, const std::string& model_dir, const std::string& dtype) {
  Result<Safetensors> files = Safetensors::open_dir(model_dir);
  if (!files.ok()) return files.error();
  std::string wanted = dtype;
  if (dtype == "auto") {
    const TensorView* embedding = files.value().find("model.embed_tokens.weight");
    wanted = embedding != nullptr && embedding->type == TensorType::kBFloat16 ? "bfloat16" : "float32";
  }
  const Result<kernels::WeightType> type = weight_type(wanted);
  if (!type.ok()) return type.error();
  FileSource source(files.value(), model_dir);
  Result<ModelWeights> weights = Loader(config, source, type.value()).load();
  if (!weights.ok()) return weights;
  if (const Status extra = source.refuse_extra(config); !extra.ok()) return extra.error();
  return weights;
}

Result<ModelWeights> random_weights(const ModelConfig& config, const std::string& dtype) {
  const Result<kernels::WeightType> type = weight_type(dtype == "auto" ? config.dtype : dtype);
  if (!type.ok()) return type.error();
  RandomSource source;
  return Loader(config, source, type.value()).load();
}

}  // namespace multiverse
