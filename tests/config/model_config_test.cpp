#include "multiverse/config/model_config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace multiverse {
namespace {

using Json = nlohmann::json;

class ModelConfigTest : public testing::Test {
 protected:
  ModelConfigTest() : dir_(testing::TempDir() + "/model_config_" + std::to_string(::getpid())) {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  ~ModelConfigTest() override { std::filesystem::remove_all(dir_); }

  // A Qwen2 config as transformers 4 wrote it.
  static Json qwen2() {
    return Json::parse(R"({
      "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896,
      "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
      "max_position_embeddings": 32768, "max_window_layers": 21, "sliding_window": 32768, "use_sliding_window": false,
      "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
      "hidden_act": "silu", "eos_token_id": 151645, "attention_dropout": 0.0})");
  }
  // A Llama 3 config as transformers 5 writes it.
  static Json llama3() {
    return Json::parse(R"({
      "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
      "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
      "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "attention_bias": false, "mlp_bias": false,
      "dtype": "bfloat16", "hidden_act": "silu", "eos_token_id": [128001, 128008, 128009], "tie_word_embeddings": true,
      "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})");
  }

  void write(const Json& json, const std::string& name = "config.json") const { write_text(json.dump(), name); }
  void write_text(const std::string& text, const std::string& name = "config.json") const {
    std::ofstream(dir_ + "/" + name) << text;
  }
  Result<ModelConfig> load(const Json& json) const {
    write(json);
    return ModelConfig::load(dir_);
  }
  // Expects a refusal whose message holds all of `parts`.
  void expect_refused(const Json& json, const std::vector<std::string>& parts) const {
    const Result<ModelConfig> result = load(json);
    ASSERT_FALSE(result.ok()) << json.dump();
    for (const std::string& part : parts) {
      EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message << " lacks " << part;
    }
    EXPECT_NE(result.error().message.find("config.json"), std::string::npos) << result.error().message;
  }

  std::string dir_;
};

TEST_F(ModelConfigTest, ReadsQwen2AsTransformers4WritesIt) {
  const Result<ModelConfig> result = load(qwen2());
  ASSERT_TRUE(result.ok()) << result.error().message;
  const ModelConfig& config = result.value();
  EXPECT_EQ(config.architecture, "Qwen2ForCausalLM");
  EXPECT_EQ(config.vocab_size, 151936);
  EXPECT_EQ(config.head_dim, 64);  // derived
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.rope_theta, 1e6);
  EXPECT_FALSE(config.rope_scaling.has_value());
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.output_bias);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.dtype, "bfloat16");
}

TEST_F(ModelConfigTest, ReadsLlama3AsTransformers5WritesIt) {
  const Result<ModelConfig> result = load(llama3());
  ASSERT_TRUE(result.ok()) << result.error().message;
  const ModelConfig& config = result.value();
  EXPECT_EQ(config.rope_theta, 500000.0);
  ASSERT_TRUE(config.rope_scaling.has_value());
  EXPECT_EQ(config.rope_scaling->factor, 32.0);
  EXPECT_EQ(config.rope_scaling->original_max_position, 8192);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.dtype, "bfloat16");
}

TEST_F(ModelConfigTest, ReadsLlama3AsTransformers4WritesIt) {
  Json json = llama3();
  json["rope_scaling"] = json["rope_parameters"];
  json["rope_scaling"].erase("rope_theta");
  json.erase("rope_parameters");
  json["rope_theta"] = 500000.0;
  json["attention_bias"] = true;
  const Result<ModelConfig> result = load(json);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result.value().rope_theta, 500000.0);
  EXPECT_EQ(result.value().rope_scaling->high_freq_factor, 4.0);
  EXPECT_TRUE(result.value().qkv_bias);
  EXPECT_TRUE(result.value().output_bias);
}

TEST_F(ModelConfigTest, ReadsQwen3) {
  Json json = qwen2();
  json["architectures"] = {"Qwen3ForCausalLM"};
  json["head_dim"] = 128;
  json["rope_scaling"] = nullptr;
  const Result<ModelConfig> result = load(json);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_TRUE(result.value().qk_norm);
  EXPECT_FALSE(result.value().qkv_bias);
  EXPECT_EQ(result.value().head_dim, 128);
  json.erase("head_dim");
  EXPECT_EQ(load(json).value().head_dim, 128);  // the family's default, not hidden_size / heads
}

TEST_F(ModelConfigTest, RefusesAnUnknownArchitectureWithTheKnownOnes) {
  Json json = qwen2();
  json["architectures"] = {"MambaForCausalLM"};
  expect_refused(json, {"MambaForCausalLM", "Qwen2ForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM"});
  json["architectures"] = {1};
  expect_refused(json, {"architectures", "Qwen2ForCausalLM"});
  json.erase("architectures");
  expect_refused(json, {"architectures", "missing"});
}

TEST_F(ModelConfigTest, RefusesByNameWhatTheDecoderDoesNot) {
  const auto with = [](const char* key, const Json& value) {
    Json json = qwen2();
    json[key] = value;
    return json;
  };
  expect_refused(with("hidden_act", "gelu"), {"hidden_act", "gelu", "silu"});
  expect_refused(with("quantization_config", {{"bits", 4}}), {"quantization_config"});
  expect_refused(with("use_sliding_window", true), {"use_sliding_window"});
  expect_refused(with("layer_types", {"full_attention", "sliding_attention"}), {"layer_types"});
  expect_refused(with("rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}), {"rope_type", "yarn", "default, llama3"});
  expect_refused(with("rope_scaling", {{"rope_type", "llama3"}}), {"rope_scaling.factor", "missing"});
  expect_refused(with("rope_scaling", "linear"), {"rope_scaling", "object"});
  expect_refused(with("rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}), {"full_attention"});
  expect_refused(with("partial_rotary_factor", 0.5), {"partial_rotary_factor"});
  expect_refused(with("mlp_bias", true), {"mlp_bias"});
  expect_refused(with("torch_dtype", "float64"), {"torch_dtype", "float64"});
  expect_refused(with("attention_bias", true), {"attention_bias"});
  expect_refused(with("head_dim", 12), {"head_dim", "12"});
}

TEST_F(ModelConfigTest, AcceptsASlidingWindowThatNoLayerUses) {
  Json json = qwen2();
  json["use_sliding_window"] = true;
  json["max_window_layers"] = 24;
  EXPECT_TRUE(load(json).ok());
  json["layer_types"] = std::vector<std::string>(24, "full_attention");
  EXPECT_TRUE(load(json).ok());
}

TEST_F(ModelConfigTest, RefusesNumbersOutOfRangeOrOfAnotherType) {
  const Json bad[] = {
      -1, 0, 1e300, 3.5, "12", true, Json::array(), Json::object(), 18446744073709551615ULL, 9223372036854775807LL};
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "max_position_embeddings"}) {
    for (const Json& value : bad) {
      Json json = qwen2();
      json[key] = value;
      expect_refused(json, {key});
    }
    Json json = qwen2();
    json.erase(key);
    if (std::string(key) != "num_key_value_heads") expect_refused(json, {key, "missing"});
  }
  for (const Json& value : {Json(-1e-6), Json(0), Json("x"), Json(2.0)}) {
    Json json = qwen2();
    json["rms_norm_eps"] = value;
    expect_refused(json, {"rms_norm_eps"});
  }
  Json json = qwen2();
  json["num_attention_heads"] = 15;
  expect_refused(json, {"num_attention_heads", "15"});
}

TEST_F(ModelConfigTest, RefusesFilesThatAreNotAJsonObject) {
  for (const char* text : {"", "{", "[1]", "null", "{\"a\": 1} x", "\xFF\xFE"}) {
    write_text(text);
    EXPECT_FALSE(ModelConfig::load(dir_).ok()) << text;
  }
  write_text(std::string(100'000, '['));
  EXPECT_FALSE(ModelConfig::load(dir_).ok());
  const Result<ModelConfig> missing = ModelConfig::load(dir_ + "/nowhere");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
}

TEST_F(ModelConfigTest, ReadsGenerationDefaults) {
  write(qwen2());
  write(Json::parse(R"({"eos_token_id": [151645, 151643], "temperature": 0.7, "top_p": 0.8, "top_k": 20,
                        "repetition_penalty": 1.05, "do_sample": true})"),
        "generation_config.json");
  const Result<GenerationConfig> result = GenerationConfig::load(dir_);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result.value().eos_token_ids, (std::vector<std::int32_t>{151645, 151643}));
  EXPECT_EQ(result.value().temperature, 0.7);
  EXPECT_EQ(result.value().top_k, 20);
  EXPECT_FALSE(result.value().min_p.has_value());
}

TEST_F(ModelConfigTest, TakesEosFromTheModelWhereGenerationHasNone) {
  write(qwen2());
  EXPECT_EQ(GenerationConfig::load(dir_).value().eos_token_ids, (std::vector<std::int32_t>{151645}));
  write(Json{{"temperature", 0.0}, {"do_sample", false}}, "generation_config.json");
  EXPECT_EQ(GenerationConfig::load(dir_).value().eos_token_ids, (std::vector<std::int32_t>{151645}));
  EXPECT_FALSE(GenerationConfig::load(dir_).value().do_sample);
}

TEST_F(ModelConfigTest, RefusesBadGenerationDefaults) {
  write(qwen2());
  const Json bad[] = {{{"eos_token_id", -1}},
                      {{"eos_token_id", "x"}},
                      {{"eos_token_id", {1, 2.5}}},
                      {{"eos_token_id", 4294967296}},
                      {{"temperature", -1}},
                      {{"temperature", "hot"}},
                      {{"top_p", 1.5}},
                      {{"top_k", -3}},
                      {{"repetition_penalty", 0}},
                      {{"do_sample", "yes"}},
                      {{"eos_token_id", Json(std::vector<int>(65, 1))}}};
  for (const Json& json : bad) {
    write(json, "generation_config.json");
    const Result<GenerationConfig> result = GenerationConfig::load(dir_);
    ASSERT_FALSE(result.ok()) << json.dump();
    EXPECT_NE(result.error().message.find(json.begin().key()), std::string::npos) << result.error().message;
  }
}

}  // namespace
}  // namespace multiverse
