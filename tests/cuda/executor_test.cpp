// The executor on a GPU (or in the emulation) beside the CPU executor, on small random models.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/cpu_executor.h"
#include "model/cuda/cuda_executor.h"
#include "tests/cuda/memory.h"
#ifdef MULTIVERSE_CUDA_EMULATION
#include "tests/support/cuda/emulated_device.h"
#endif

namespace multiverse {
namespace {

using Json = nlohmann::json;

constexpr std::int32_t kVocab = 304;

std::unique_ptr<Device> open_device() {
#ifdef MULTIVERSE_CUDA_EMULATION
  return make_emulated_device(std::int64_t{4} << 30);
#else
  auto device = open_torch_device(0);
  EXPECT_TRUE(device.ok()) << device.error().message;
  return std::move(device).value();
#endif
}

// A segment's tokens and pages.
struct Text {
  std::vector<TokenId> tokens;
  PageId first_page = 0;
  std::int32_t first_position = 0;
  std::vector<const Text*> parents;  // seen whole
  std::int32_t computed = 0;
};

class CudaExecutorTest : public kernels::cuda::DeviceTest {
 protected:
  CudaExecutorTest() : dir_(testing::TempDir() + "/cuda_executor_" + std::to_string(::getpid())) {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
    options_.model_dir = dir_;
    options_.random_weights = true;
    options_.kv_cache_bytes = 8 << 20;
    options_.max_rows = 48;
  }
  ~CudaExecutorTest() override { std::filesystem::remove_all(dir_); }

  static Json config(const std::string& architecture) {
    return {{"architectures", {architecture}},
            {"vocab_size", kVocab},
            {"hidden_size", 96},
            {"intermediate_size", 136},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 3},
            {"num_key_value_heads", 1},
            {"head_dim", 64},
            {"max_position_embeddings", 2048},
            {"dtype", "bfloat16"},
            {"tie_word_embeddings", architecture == "Qwen2ForCausalLM"}};
  }
  ModelConfig load_config(const Json& json) {
    std::ofstream(dir_ + "/config.json") << json.dump();
    auto loaded = ModelConfig::load(dir_);
    EXPECT_TRUE(loaded.ok()) << loaded.error().message;
    return loaded.value();
  }
  std::unique_ptr<Executor> make(const ModelConfig& config) {
    auto made = make_cuda_executor(config, open_device(), options_);
    EXPECT_TRUE(made.ok()) << made.error().message;
    return std::move(made).value();
  }
  std::unique_ptr<Executor> make_cpu(const ModelConfig& config) {
    auto weights = random_weights(config, "bfloat16");
    auto pool = KvPool::allocate(config, 8 << 20);
    return std::make_unique<CpuExecutor>(config, std::move(weights).value(), std::move(pool).value(), 512, 1);
  }

  Text text(std::int32_t tokens, std::int32_t position, std::vector<const Text*> parents) {
    Text out;
    for (std::int32_t i = 0; i < tokens; ++i) out.tokens.push_back(static_cast<TokenId>(random_() % kVocab));
    out.first_page = next_page_;
    next_page_ += (tokens + kPageTokens - 1) / kPageTokens;
    out.first_position = position;
    out.parents = std::move(parents);
    return out;
  }
  // The next `count` tokens of `text`; all rows' log-probabilities are wanted.
  static void add(StepPlan& plan, Text& text, std::int32_t count) {
    const auto begin = static_cast<std::int32_t>(plan.rows.size());
    for (std::int32_t i = text.computed; i < text.computed + count; ++i) {
      SampleRequest sample;
      sample.row = static_cast<std::int32_t>(plan.rows.size());
      sample.given = 0;
      sample.top_logprobs = kVocab;
      plan.samples.push_back(sample);
      plan.rows.push_back({text.tokens[static_cast<std::size_t>(i)], text.first_position + i,
                           text.first_page + i / kPageTokens, i % kPageTokens});
    }
    text.computed += count;
    const auto item = [&](const Text& seen, std::int32_t tokens, bool causal) {
      const auto first = static_cast<std::int32_t>(plan.pages.size());
      for (PageId page = 0; page * kPageTokens < tokens; ++page) plan.pages.push_back(seen.first_page + page);
      plan.items.push_back({first, tokens, begin, begin + count, causal});
    };
    for (const Text* parent : text.parents) item(*parent, static_cast<std::int32_t>(parent->tokens.size()), false);
    item(text, text.computed, true);
  }

  // A prompt in chunks, paths side by side, a conclusion that sees all, its header computed with the last path's end.
  std::vector<StepResult> run_tree(Executor& executor, unsigned seed) {
    random_.seed(seed);
    next_page_ = 0;
    Text root = text(71, 0, {});
    Text a = text(21, 71, {&root}), b = text(6, 71, {&root}), c = text(19, 71, {&root});
    Text end = text(5, 92, {&root, &a, &b, &c});
    std::vector<StepResult> results;
    const auto step = [&](const std::vector<std::pair<Text*, std::int32_t>>& parts) {
      StepPlan plan;
      for (const auto& [part, count] : parts) add(plan, *part, count);
      executor.execute(plan, results.emplace_back());
    };
    step({{&root, 40}});
    step({{&root, 31}});
    step({{&a, 3}, {&b, 3}, {&c, 3}});
    step({{&a, 1}, {&b, 1}, {&c, 1}});
    step({{&a, 17}, {&b, 2}, {&c, 14}});
    step({{&c, 1}, {&end, 4}});
    step({{&end, 1}});
    return results;
  }

  static std::vector<float> logprobs(const SampleResult& sample) {
    std::vector<float> out(kVocab, NAN);
    for (const TokenLogprob& entry : sample.top) out[static_cast<std::size_t>(entry.token)] = entry.logprob;
    return out;
  }
  static void expect_close(const std::vector<StepResult>& got, const std::vector<StepResult>& want,
                           const std::string& what, double looser = 1.0) {
    // Activations, keys and values in bfloat16 against float32; logits have a deviation of about 0.2.
    const double tolerance = 0.012 * looser;
    double worst = 0.0, squares = 0.0, count = 0.0;
    for (std::size_t s = 0; s < want.size(); ++s) {
      for (std::size_t i = 0; i < want[s].samples.size(); ++i) {
        const auto a = logprobs(got[s].samples[i]), b = logprobs(want[s].samples[i]);
        for (std::size_t k = 0; k < a.size(); ++k) {
          const double error = std::isfinite(a[k]) ? std::fabs(static_cast<double>(a[k] - b[k])) : 1e9;
          worst = std::max(worst, error);
          squares += error * error;
          count += 1.0;
        }
      }
    }
    std::printf("%s: greatest difference %.1e, root mean square %.1e, tolerance %.0e\n", what.c_str(), worst,
                std::sqrt(squares / count), tolerance);
    EXPECT_LE(worst, tolerance) << what;
    EXPECT_LE(std::sqrt(squares / count), tolerance / 6) << what;
  }

  std::string dir_;
  TorchExecutorOptions options_;
  std::mt19937 random_;
  PageId next_page_ = 0;
};

TEST_F(CudaExecutorTest, ComputesWhatTheCpuComputes) {
  const unsigned seed = fresh_seed();
  for (const char* architecture : {"Qwen2ForCausalLM", "Qwen3ForCausalLM", "LlamaForCausalLM"}) {
    Json json = config(architecture);
    if (std::string(architecture) == "LlamaForCausalLM") json["attention_bias"] = true;
    const ModelConfig model = load_config(json);
    const auto want = run_tree(*make_cpu(model), seed);
    options_.deterministic = std::string(architecture) == "Qwen3ForCausalLM";
    expect_close(run_tree(*make(model), seed), want, architecture);
  }
}

// 8 bits hold 4 digits of a number where bfloat16 holds 8; a context's roundings cancel in part.
TEST_F(CudaExecutorTest, KeepsKeysAndValuesInOtherFormats) {
  const unsigned seed = fresh_seed();
  const ModelConfig model = load_config(config("Qwen2ForCausalLM"));
  const auto want = run_tree(*make_cpu(model), seed);
  std::int32_t pages = 0;
  for (const auto& [dtype, looser] : {std::pair("float16", 1.0), std::pair("fp8", 4.0)}) {
    options_.kv_cache_dtype = dtype;
    const auto executor = make(model);
    expect_close(run_tree(*executor, seed), want, dtype, looser);
    if (pages > 0) {
      EXPECT_GT(executor->info().num_pages, pages * 15 / 8);
    }
    pages = executor->info().num_pages;
  }
}

TEST_F(CudaExecutorTest, DeterministicRowsHaveTheSameBitsInAnyStep) {
  options_.deterministic = true;
  options_.max_rows = 64;
  const auto executor = make(load_config(config("Qwen3ForCausalLM")));
  random_.seed(fresh_seed());
  const Text whole = text(60, 0, {}), noise = text(40, 0, {});
  std::vector<SampleResult> at_once, in_parts;
  {
    Text copy = whole;
    StepPlan plan;
    StepResult result;
    add(plan, copy, 60);
    executor->execute(plan, result);
    at_once = result.samples;
  }
  Text copy = whole, other = noise;
  for (const std::int32_t count : {1, 7, 16, 20, 16}) {
    StepPlan plan;
    StepResult result;
    add(plan, other, 5);
    add(plan, copy, count);
    executor->execute(plan, result);
    in_parts.insert(in_parts.end(), result.samples.begin() + 5, result.samples.end());
  }
  ASSERT_EQ(in_parts.size(), at_once.size());
  for (std::size_t i = 0; i < at_once.size(); ++i) {
    const auto a = logprobs(at_once[i]), b = logprobs(in_parts[i]);
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << "row " << i;
  }
}

TEST_F(CudaExecutorTest, SamplesOfManyRowsAndManyOfOne) {
  const ModelConfig model = load_config(config("Qwen2ForCausalLM"));
  options_.max_rows = 200;
  const auto executor = make(model), cpu = make_cpu(model);
  random_.seed(fresh_seed());
  const Text whole = text(150, 0, {});
  SamplingParams greedy;
  greedy.temperature = 0.0F;
  StepResult results[2];
  for (const bool on_cpu : {false, true}) {
    Text copy = whole;
    StepPlan plan;
    add(plan, copy, 150);  // more rows of logits than are made at once
    for (std::int32_t n = 0; n < 140; ++n) {
      SampleRequest sample;
      sample.row = n % 2;
      sample.params = &greedy;
      sample.top_logprobs = 0;
      plan.samples.push_back(sample);
    }
    (on_cpu ? cpu : executor)->execute(plan, results[on_cpu ? 1 : 0]);
  }
  for (std::size_t n = 0; n < 140; ++n) {
    EXPECT_EQ(results[0].samples[150 + n].token, results[0].samples[n % 2].top[0].token);
  }
  for (StepResult& result : results) result.samples.resize(150);
  expect_close({results[0]}, {results[1]}, "150 rows");
}

TEST_F(CudaExecutorTest, RefusesWhatItCannotDo) {
  const auto refused = [&](const Json& json, const std::string& part) {
    const auto made = make_cuda_executor(load_config(json), open_device(), options_);
    ASSERT_FALSE(made.ok()) << part;
    EXPECT_NE(made.error().message.find(part), std::string::npos) << made.error().message;
  };
  Json json = config("Qwen3ForCausalLM");
  json["head_dim"] = 80;
  refused(json, "head_dim is 80; on a GPU 64 and 128");
  json = config("Qwen3ForCausalLM");
  json["intermediate_size"] = 100;
  refused(json, "intermediate_size is 100");
  options_.kv_cache_bytes = std::int64_t{1} << 50;
  refused(config("Qwen3ForCausalLM"), "kv_cache_bytes is 1125899906842624");
}

std::string content(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The second start takes what the first one measured, the third sees that what it reads can't be.
TEST_F(CudaExecutorTest, KeepsWhatItMeasuredInAFile) {
  const ModelConfig model = load_config(config("Qwen2ForCausalLM"));
  options_.tuning_file = dir_ + "/tuning.json";
  options_.max_rows = 8;
  make(model);
  const std::string measured = content(options_.tuning_file);
  Json other = Json::parse(measured);
  ASSERT_EQ(other.size(), 1U);
  ASSERT_EQ(other.begin()->size(), kLayerKinds.size());
  for (Json& letters : *other.begin()) {
    ASSERT_EQ(letters.get<std::string>().size(), 3U);  // of 1, 4 and 8 rows
    letters = "tlt";
  }
  std::ofstream(options_.tuning_file) << other.dump(1) << "\n";
  make(model);
  EXPECT_EQ(content(options_.tuning_file), other.dump(1) + "\n");
  for (const char* broken : {"tl", "tltl", "txt", ""}) {
    (*other.begin())["down"] = broken;
    std::ofstream(options_.tuning_file) << other.dump();
    make(model);
    EXPECT_EQ(Json::parse(content(options_.tuning_file)).begin()->at("down").get<std::string>().size(), 3U) << broken;
  }
}

TEST(TuningFileTest, ReplacesWhatItCannotRead) {
  const std::string path = testing::TempDir() + "/tuning_" + std::to_string(::getpid()) + ".json";
  const TuningFile file(path);
  const LayerChoices choices = {{"heads", "stl"}, {"down", "lll"}};
  for (const std::string& broken : {std::string("{"), std::string("[1]"), std::string("{\"a\": 1}"),
                                    std::string("{\"a\": {\"b\": []}}"), std::string(std::size_t{2} << 20, ' ')}) {
    std::ofstream(path) << broken;
    EXPECT_EQ(file.find("a"), std::nullopt);
    file.keep("a", choices);
    EXPECT_EQ(file.find("a"), choices);
  }
  EXPECT_EQ(file.find("b"), std::nullopt);
  for (int i = 0; i < 300; ++i) file.keep(std::to_string(i), choices);
  EXPECT_LE(Json::parse(content(path)).size(), 256U);
  std::filesystem::remove(path);
  EXPECT_EQ(TuningFile("").find("a"), std::nullopt);
  TuningFile("/nowhere/tuning.json").keep("a", choices);  // a warning
  EXPECT_EQ(TuningFile("/nowhere/tuning.json").find("a"), std::nullopt);
}

#ifdef MULTIVERSE_CUDA_EMULATION
TEST_F(CudaExecutorTest, RefusesEightBitsWhereTheDeviceLacksThem) {
  options_.kv_cache_dtype = "fp8";
  const auto made = make_cuda_executor(load_config(config("Qwen3ForCausalLM")),
                                       make_emulated_device(std::int64_t{4} << 30, 86), options_);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().param, "kv_cache_dtype");
  EXPECT_NE(made.error().message.find("8.6"), std::string::npos) << made.error().message;
}
#endif

TEST_F(CudaExecutorTest, MistakesOfAStepFailThatStepOnly) {
  const auto executor = make(load_config(config("Qwen3ForCausalLM")));
  random_.seed(1);
  Text copy = text(3, 0, {});
  StepPlan plan;
  StepResult result;
  add(plan, copy, 3);
  plan.rows[1].token = kVocab;
  EXPECT_THROW(executor->execute(plan, result), ExecutionError);
  plan.rows[1].token = 0;
  executor->execute(plan, result);
  EXPECT_EQ(result.samples.size(), 3U);
  plan.samples.clear();
  executor->execute(plan, result);
  EXPECT_TRUE(result.samples.empty());
  plan.clear();
  executor->execute(plan, result);
  EXPECT_TRUE(result.samples.empty());
}

}  // namespace
}  // namespace multiverse
