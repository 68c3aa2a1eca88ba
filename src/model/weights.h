// A model's weights as the CPU executor uses them: fused and packed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "multiverse/config/model_config.h"
#include "multiverse/kernels/linear.h"

#include "model/buffer.h"

namespace multiverse {

// A packed matrix and its memory.
struct LinearWeights {
  kernels::PackedMatrix matrix;
  std::vector<float> bias;  // padded to whole panels; empty = none
  Buffer storage;

  const float* bias_or_null() const { return bias.empty() ? nullptr : bias.data(); }
};

struct LayerWeights {
  std::vector<float> attention_norm;  // (hidden)
  LinearWeights qkv;                  // outputs: query heads, key heads, value heads
  std::vector<float> q_norm, k_norm;  // (head_dim); empty = none
  LinearWeights output;
  std::vector<float> mlp_norm;  // (hidden)
  LinearWeights gate_up;        // blocks of 16 gates and 16 ups, for Epilogue::kSiluMul
  LinearWeights down;
};

struct ModelWeights {
  LinearWeights lm_head;            // (vocab, hidden)
  std::optional<Buffer> embedding;  // (vocab, hidden) in lm_head's type; absent where lm_head is shared
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;  // (hidden)
  std::int64_t bytes = 0;         // of all matrices

  void embed(std::int64_t token, float* out) const;  // out (hidden)
};

// `dtype`: "auto" (that of the file's embedding; float16 becomes float32), "bfloat16", "float32".
// The error names the tensor that is missing, extra or misshapen.
Result<ModelWeights> load_weights(const ModelConfig& config, const std::string& model_dir, const std::string& dtype);
// Normal with deviation 0.02, norms 1: the same on each call. "auto" = the config's dtype.
Result<ModelWeights> random_weights(const ModelConfig& config, const std::string& dtype);

}  // namespace multiverse
