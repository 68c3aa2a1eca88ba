// A model's Hugging Face `config.json` and `generation_config.json`, as one typed struct.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "multiverse/base/status.h"

namespace multiverse {

struct RopeScaling {  // "llama3"
  double factor = 1.0, low_freq_factor = 1.0, high_freq_factor = 1.0;
  std::int64_t original_max_position = 0;
  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  std::string architecture;  // "Qwen2ForCausalLM", "Qwen3ForCausalLM", "LlamaForCausalLM"
  std::int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_layers = 0;
  std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  std::int64_t max_position = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  std::optional<RopeScaling> rope_scaling;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;     // Qwen2
  bool qk_norm = false;      // Qwen3
  bool output_bias = false;  // attention_bias of Llama
  std::string dtype;         // of the file: "bfloat16", "float16", "float32"

  // Reads DIR/config.json as transformers 4 and 5 write it. Anything the decoder does not do (another architecture,
  // sliding window in use, another activation, a rope type) is refused by name with what is known.
  static Result<ModelConfig> load(const std::string& model_dir);
  // The first setting that decides what a forward pass computes and differs in `other`, as "NAME is A, not B" with B
  // the other's; nullopt where none does. The type in which the file holds its numbers is none.
  std::optional<std::string> difference(const ModelConfig& other) const;
};

// Sampling defaults of the model's authors; absent fields stay neutral.
struct GenerationConfig {
  std::vector<std::int32_t> eos_token_ids;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<std::int64_t> top_k;
  bool do_sample = true;  // false: temperature 0 by default

  // DIR/generation_config.json; where absent, eos from config.json.
  static Result<GenerationConfig> load(const std::string& model_dir);
};

}  // namespace multiverse
