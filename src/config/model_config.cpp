#include "multiverse/config/model_config.h"

#include <algorithm>

#include "config/json_reader.h"

namespace multiverse {
namespace {

constexpr const char* kKnownArchitectures = "Qwen2ForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM";

// Bounds far above any model of these families; they keep the products of sizes within 64 bits.
constexpr std::int64_t kMaxVocab = 1 << 24;
constexpr std::int64_t kMaxHidden = 1 << 17;
constexpr std::int64_t kMaxIntermediate = 1 << 20;
constexpr std::int64_t kMaxLayers = 1024;
constexpr std::int64_t kMaxHeads = 1024;
constexpr std::int64_t kMaxHeadDim = 512;
constexpr std::int64_t kMaxPosition = 1 << 26;
constexpr double kMaxTheta = 1e15;

std::string read_architecture(JsonReader& reader) {
  if (!reader.has("architectures")) {
    reader.fail("architectures", concat("is missing; known: ", kKnownArchitectures));
    return "";
  }
  const nlohmann::json& list = reader.at("architectures");
  if (!list.is_array() || list.size() != 1 || !list[0].is_string()) {
    reader.fail("architectures", concat("must be a list of one name; known: ", kKnownArchitectures));
    return "";
  }
  auto name = list[0].get<std::string>();
  if (name != "Qwen2ForCausalLM" && name != "Qwen3ForCausalLM" && name != "LlamaForCausalLM") {
    reader.fail("architectures",
                concat("names ", shown(list[0]), ", which is not supported; known: ", kKnownArchitectures));
  }
  return name;
}

void read_sizes(JsonReader& reader, ModelConfig& config) {
  config.vocab_size = reader.integer("vocab_size", 1, kMaxVocab);
  config.hidden_size = reader.integer("hidden_size", 1, kMaxHidden);
  config.intermediate_size = reader.integer("intermediate_size", 1, kMaxIntermediate);
  config.num_layers = reader.integer("num_hidden_layers", 1, kMaxLayers);
  config.num_heads = reader.integer("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads = reader.integer("num_key_value_heads", 1, kMaxHeads, config.num_heads);
  config.max_position = reader.integer("max_position_embeddings", 1, kMaxPosition);
  config.rms_norm_eps = reader.number("rms_norm_eps", 1e-12, 1.0, 1e-6);
  if (config.num_heads % config.num_kv_heads != 0) {
    reader.fail("num_attention_heads",
                concat("is ", config.num_heads, ", not a multiple of `num_key_value_heads`, ", config.num_kv_heads));
  }
  if (reader.has("head_dim")) {
    config.head_dim = reader.integer("head_dim", 1, kMaxHeadDim);
  } else if (config.architecture == "Qwen3ForCausalLM") {
    config.head_dim = 128;  // transformers' default for this family
  } else {
    if (config.hidden_size % config.num_heads != 0) {
      reader.fail("hidden_size", concat("is ", config.hidden_size, ", not a multiple of `num_attention_heads`, ",
                                        config.num_heads, ", and `head_dim` is missing"));
    }
    config.head_dim = config.hidden_size / config.num_heads;
  }
  if (config.head_dim % 8 != 0 || config.head_dim > kMaxHeadDim) {
    reader.fail("head_dim", concat("is ", config.head_dim, "; supported: multiples of 8 up to ", kMaxHeadDim));
  }
}

// transformers 4: `rope_theta` at the top, `rope_scaling` an object or null. transformers 5: all in `rope_parameters`.
std::optional<Error> read_rope(JsonReader& reader, const nlohmann::json& json, const std::string& file,
                               ModelConfig& config) {
  config.rope_theta = reader.number("rope_theta", 1.0, kMaxTheta, 10000.0);
  if (reader.number("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0) {
    reader.fail("partial_rotary_factor", "is not supported; known: 1");
  }
  const char* key = reader.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!reader.has(key)) return std::nullopt;
  if (!json.at(key).is_object()) {
    reader.fail(key, concat("must be an object, not ", shown(json.at(key))));
    return std::nullopt;
  }
  JsonReader rope(json.at(key), file, concat(key, "."));
  config.rope_theta = rope.number("rope_theta", 1.0, kMaxTheta, config.rope_theta);
  if (rope.number("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0) {
    rope.fail("partial_rotary_factor", "is not supported; known: 1");
  }
  const std::string type = rope.string("rope_type", rope.string("type", "default"));
  if (type == "llama3") {
    RopeScaling scaling;
    scaling.factor = rope.number("factor", 1.0, 1e6);
    scaling.low_freq_factor = rope.number("low_freq_factor", 1e-6, 1e6);
    scaling.high_freq_factor = rope.number("high_freq_factor", 1e-6, 1e6);
    scaling.original_max_position = rope.integer("original_max_position_embeddings", 1, kMaxPosition);
    if (!(scaling.high_freq_factor > scaling.low_freq_factor)) {
      rope.fail("high_freq_factor",
                concat("is ", scaling.high_freq_factor, ", not above `low_freq_factor`, ", scaling.low_freq_factor));
    }
    config.rope_scaling = scaling;
  } else if (type != "default") {
    rope.fail("rope_type", concat("is ", shown(type), ", which is not supported; known: default, llama3"));
  } else {
    for (const auto& [name, value] : json.at(key).items()) {
      if (value.is_object()) rope.fail(name, "sets the rotary embedding of one layer type, which is not supported");
    }
  }
  return rope.error();
}

// What other members of the families have and this decoder does not.
void refuse_unsupported(JsonReader& reader, ModelConfig& config) {
  const std::string activation = reader.string("hidden_act", "silu");
  if (activation != "silu") reader.fail("hidden_act", concat("is ", shown(activation), "; known: silu"));
  if (reader.has("quantization_config")) {
    reader.fail("quantization_config",
                "is set; quantized weights are not supported: use the bfloat16 or float32 model");
  }
  if (reader.boolean("mlp_bias", false)) reader.fail("mlp_bias", "is true, which is not supported");
  if (reader.has("layer_types")) {
    const nlohmann::json& types = reader.at("layer_types");
    const bool all_full = types.is_array() && std::all_of(types.begin(), types.end(), [](const nlohmann::json& type) {
                            return type.is_string() && type.get_ref<const std::string&>() == "full_attention";
                          });
    if (!all_full)
      reader.fail("layer_types", "names a layer that is not full_attention; sliding windows are not supported");
  } else if (reader.boolean("use_sliding_window", false) && reader.has("sliding_window") &&
             reader.integer("max_window_layers", 0, 1 << 20, 28) < config.num_layers) {
    reader.fail("use_sliding_window", "is true; sliding windows are not supported");
  }
  const bool attention_bias = reader.boolean("attention_bias", false);
  if (config.architecture == "Qwen2ForCausalLM") {
    if (attention_bias && reader.has("attention_bias")) {
      reader.fail("attention_bias", "is not a setting of Qwen2ForCausalLM, whose q, k and v always have a bias");
    }
    config.qkv_bias = true;
  } else {
    config.qkv_bias = attention_bias;
    config.output_bias = attention_bias;
  }
  config.qk_norm = config.architecture == "Qwen3ForCausalLM";
}

std::string read_dtype(JsonReader& reader) {
  const char* key = reader.has("dtype") ? "dtype" : "torch_dtype";
  std::string dtype = reader.string(key, "float32");
  if (dtype != "bfloat16" && dtype != "float16" && dtype != "float32") {
    reader.fail(key, concat("is ", shown(dtype), "; known: bfloat16, float16, float32"));
  }
  return dtype;
}

}  // namespace

Result<ModelConfig> ModelConfig::load(const std::string& model_dir) {
  const std::string file = model_dir + "/config.json";
  const Result<nlohmann::json> json = read_json_object(file);
  if (!json.ok()) return json.error();
  JsonReader reader(json.value(), file);
  ModelConfig config;
  config.architecture = read_architecture(reader);
  if (reader.error()) return *reader.error();
  read_sizes(reader, config);
  const std::optional<Error> rope_error = read_rope(reader, json.value(), file, config);
  refuse_unsupported(reader, config);
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings", false);
  config.dtype = read_dtype(reader);
  if (reader.error()) return *reader.error();
  if (rope_error) return *rope_error;
  return config;
}

std::optional<std::string> ModelConfig::difference(const ModelConfig& other) const {
  std::optional<std::string> found;
  const auto compare = [&](const char* name, const auto& mine, const auto& theirs) {
    if (!found && mine != theirs) found = concat(name, " is ", mine, ", not ", theirs);
  };
  compare("the architecture", architecture, other.architecture);
  compare("vocab_size", vocab_size, other.vocab_size);
  compare("hidden_size", hidden_size, other.hidden_size);
  compare("intermediate_size", intermediate_size, other.intermediate_size);
  compare("num_hidden_layers", num_layers, other.num_layers);
  compare("num_attention_heads", num_heads, other.num_heads);
  compare("num_key_value_heads", num_kv_heads, other.num_kv_heads);
  compare("head_dim", head_dim, other.head_dim);
  compare("max_position_embeddings", max_position, other.max_position);
  compare("rms_norm_eps", rms_norm_eps, other.rms_norm_eps);
  compare("rope_theta", rope_theta, other.rope_theta);
  compare("tie_word_embeddings", tie_word_embeddings, other.tie_word_embeddings);
  compare("attention bias", qkv_bias, other.qkv_bias);
  compare("the norm of queries and keys", qk_norm, other.qk_norm);
  compare("attention output bias", output_bias, other.output_bias);
  if (!found && rope_scaling != other.rope_scaling) found = "rope_scaling is another";
  return found;
}

}  // namespace multiverse
