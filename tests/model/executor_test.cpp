#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "multiverse/model/torch_executor.h"

namespace multiverse {
namespace {

using Json = nlohmann::json;
using Tensors = std::map<std::string, std::vector<std::int64_t>>;

class ExecutorTest : public testing::Test {
 protected:
  ExecutorTest() : dir_(testing::TempDir() + "/executor_" + std::to_string(::getpid())) {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
    write_config(config());
    options_.model_dir = dir_;
    options_.random_weights = true;
    options_.kv_cache_bytes = 4 << 20;
    options_.threads = 2;
  }
  ~ExecutorTest() override { std::filesystem::remove_all(dir_); }

  static Json config() {
    return {{"architectures", {"Qwen3ForCausalLM"}},
            {"vocab_size", 300},
            {"hidden_size", 48},
            {"intermediate_size", 72},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 4},
            {"num_key_value_heads", 2},
            {"head_dim", 16},
            {"max_position_embeddings", 512},
            {"dtype", "float32"},
            {"tie_word_embeddings", true}};
  }
  void write_config(const Json& json) const { std::ofstream(dir_ + "/config.json") << json.dump(); }

  static Tensors tensors() {
    Tensors out = {{"model.embed_tokens.weight", {300, 48}}, {"model.norm.weight", {48}}};
    for (const std::string prefix : {"model.layers.0.", "model.layers.1."}) {
      out[prefix + "input_layernorm.weight"] = out[prefix + "post_attention_layernorm.weight"] = {48};
      out[prefix + "self_attn.q_proj.weight"] = {64, 48};
      out[prefix + "self_attn.k_proj.weight"] = out[prefix + "self_attn.v_proj.weight"] = {32, 48};
      out[prefix + "self_attn.o_proj.weight"] = {48, 64};
      out[prefix + "self_attn.q_norm.weight"] = out[prefix + "self_attn.k_norm.weight"] = {16};
      out[prefix + "mlp.gate_proj.weight"] = out[prefix + "mlp.up_proj.weight"] = {72, 48};
      out[prefix + "mlp.down_proj.weight"] = {48, 72};
    }
    return out;
  }
  // All values `fill` or a small wave; `nan_in`: one tensor's first value is NaN.
  void write_weights(const Tensors& shapes, const std::string& nan_in = "") const {
    Json header;
    std::vector<float> data;
    for (const auto& [name, shape] : shapes) {
      const std::size_t begin = data.size();
      std::int64_t count = 1;
      for (const std::int64_t size : shape) count *= size;
      for (std::int64_t i = 0; i < count; ++i) data.push_back(std::sin(static_cast<float>(i % 1000) + 1.0F) * 0.2F);
      if (name == nan_in) data[begin] = std::numeric_limits<float>::quiet_NaN();
      header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin * 4, data.size() * 4}}};
    }
    const std::string text = header.dump();
    const std::uint64_t length = text.size();
    std::ofstream file(dir_ + "/model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), 8);
    file << text;
    file.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size() * 4));
  }

  std::unique_ptr<Executor> make() const {
    auto made = make_torch_executor(options_);
    EXPECT_TRUE(made.ok()) << made.error().message;
    return std::move(made).value();
  }
  void expect_refused(const std::vector<std::string>& parts) const {
    const auto made = make_torch_executor(options_);
    ASSERT_FALSE(made.ok()) << parts[0];
    for (const std::string& part : parts) {
      EXPECT_NE(made.error().message.find(part), std::string::npos) << made.error().message << " lacks " << part;
    }
  }

  // Adds rows [done, done + count) of a causal text on pages from `first_page` on, all of them sampled.
  static void add_text(StepPlan& plan, const std::vector<TokenId>& text, std::int32_t done, std::int32_t count,
                       PageId first_page) {
    const auto begin = static_cast<std::int32_t>(plan.rows.size());
    const auto first_entry = static_cast<std::int32_t>(plan.pages.size());
    for (std::int32_t i = done; i < done + count; ++i) {
      SampleRequest sample;
      sample.row = static_cast<std::int32_t>(plan.rows.size());
      sample.given = 0;
      sample.top_logprobs = 300;
      plan.samples.push_back(sample);
      plan.rows.push_back({text[static_cast<std::size_t>(i)], i, first_page + i / kPageTokens, i % kPageTokens});
    }
    for (PageId page = 0; page * kPageTokens < done + count; ++page) plan.pages.push_back(first_page + page);
    plan.items.push_back({first_entry, done + count, begin, begin + count, true});
  }
  static std::vector<TokenId> random_text(std::mt19937& random, int size) {
    std::vector<TokenId> out(static_cast<std::size_t>(size));
    for (TokenId& token : out) token = static_cast<TokenId>(random() % 300);
    return out;
  }
  static bool same(const SampleResult& a, const SampleResult& b) {
    if (a.top.size() != b.top.size()) return false;
    for (std::size_t i = 0; i < a.top.size(); ++i) {
      if (a.top[i].token != b.top[i].token || std::memcmp(&a.top[i].logprob, &b.top[i].logprob, 4) != 0) return false;
    }
    return a.token == b.token && std::memcmp(&a.logprob, &b.logprob, 4) == 0;
  }

  std::string dir_;
  TorchExecutorOptions options_;
};

TEST_F(ExecutorTest, TellsWhatItIs) {
  const auto executor = make();
  EXPECT_EQ(executor->info().model_type, "qwen3");
  EXPECT_EQ(executor->info().vocab_size, 300);
  EXPECT_EQ(executor->info().max_position, 512);
  EXPECT_EQ(executor->info().max_rows, 512);
  // 2 layers, 2 heads, 16 tokens, keys and values of 16 floats
  EXPECT_EQ(executor->info().num_pages, (4 << 20) / (2 * 2 * 16 * 2 * 16 * 4));
  EXPECT_GT(executor->info().weight_bytes, 0);
}

// A text's log-probabilities, bit for bit: in one step, in chunks, beside other texts, with other threads, on other
// pages.
TEST_F(ExecutorTest, ARowDependsOnItsOwnContextOnly) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (const char* dtype : {"float32", "bfloat16"}) {
    options_.dtype = dtype;
    const auto executor = make();
    const std::vector<TokenId> text = random_text(random, 100), other = random_text(random, 180);
    StepPlan plan;
    StepResult whole, result;
    add_text(plan, text, 0, 100, 0);
    executor->execute(plan, whole);

    options_.threads = 1;
    const auto second = make();
    options_.threads = 2;
    std::int32_t done = 0, other_done = 0;
    while (done < 100) {
      const auto count = std::min(100 - done, 1 + static_cast<std::int32_t>(random() % 20));
      const auto other_count = std::min(180 - other_done, static_cast<std::int32_t>(random() % 30));
      plan.clear();
      if (other_count > 0) add_text(plan, other, other_done, other_count, 40);
      const std::size_t first = plan.samples.size();
      add_text(plan, text, done, count, 13);
      second->execute(plan, result);
      for (std::int32_t i = 0; i < count; ++i) {
        EXPECT_TRUE(same(result.samples[first + static_cast<std::size_t>(i)],
                         whole.samples[static_cast<std::size_t>(done + i)]))
            << dtype << ", row " << done + i;
      }
      done += count;
      other_done += other_count;
    }
  }
}

TEST_F(ExecutorTest, SamplesOfOneRowShareItsLogits) {
  const auto executor = make();
  SamplingParams params;
  StepPlan plan;
  StepResult result;
  add_text(plan, {1, 2, 3}, 0, 3, 0);
  plan.samples.clear();
  for (std::uint64_t n = 0; n < 6; ++n) {
    SampleRequest sample;
    sample.row = n % 2 == 0 ? 2 : 0;  // not in the order of rows
    sample.params = &params;
    sample.key = {n / 2, 0, 0};
    sample.top_logprobs = 1;
    plan.samples.push_back(sample);
  }
  executor->execute(plan, result);
  ASSERT_EQ(result.samples.size(), 6U);
  EXPECT_EQ(result.samples[0].top[0].token, result.samples[2].top[0].token);
  EXPECT_EQ(result.samples[0].top[0].logprob, result.samples[4].top[0].logprob);
  EXPECT_NE(result.samples[0].top[0].logprob, result.samples[1].top[0].logprob);
}

TEST_F(ExecutorTest, RefusesBadOptions) {
  options_.device = "cuda:99";  // not there, or not built in
  expect_refused({"cuda:99"});
  options_.device = "cuda:x";
  expect_refused({"cuda:x", "cpu, cuda:N"});
  options_.device = "tpu";
  expect_refused({"tpu", "cpu, cuda:N"});
  options_.device = "cpu";
  options_.dtype = "int8";
  expect_refused({"int8", "auto, bfloat16, float32"});
  options_.dtype = "auto";
  options_.max_rows = 0;
  expect_refused({"max_rows is 0"});
  options_.max_rows = 512;
  options_.threads = -1;
  expect_refused({"threads is -1"});
  options_.threads = 1;
  options_.kv_cache_dtype = "int8";
  expect_refused({"kv_cache_dtype is 'int8'", "fp8"});
  options_.kv_cache_dtype = "fp8";
  expect_refused({"kv_cache_dtype is 'fp8'", "on a CPU"});
  options_.kv_cache_dtype = "auto";
  options_.kv_cache_bytes = 100;
  expect_refused({"kv_cache_bytes is 100", "one page of this model needs 8192"});
  options_.kv_cache_bytes = -1;
  expect_refused({"kv_cache_bytes is -1"});
  options_.kv_cache_bytes = std::int64_t{1} << 62;
  expect_refused({"kv_cache_bytes is 4611686018427387904", "available"});
}

TEST_F(ExecutorTest, DefaultPoolSuitsTheModel) {
  options_.kv_cache_bytes = 0;
  EXPECT_EQ(make()->info().num_pages, 64 * 512 / kPageTokens);
}

TEST_F(ExecutorTest, NamesMissingExtraAndMisshapenTensors) {
  options_.random_weights = false;
  expect_refused({"no weights in"});
  write_weights(tensors());
  make();

  for (const auto& [name, shape] : tensors()) {
    Tensors broken = tensors();
    broken.erase(name);
    write_weights(broken);
    expect_refused({name, "missing"});
    broken[name] = shape;
    broken[name].back() += 1;
    write_weights(broken);
    expect_refused({name, "shape", std::to_string(shape.back() + 1)});
  }
  Tensors extra = tensors();
  extra["lm_head.weight"] = {300, 48};  // shared: a copy is harmless
  extra["model.layers.0.self_attn.rotary_emb.inv_freq"] = {8};
  write_weights(extra);
  make();
  extra["model.layers.2.mlp.up_proj.weight"] = {72, 48};
  write_weights(extra);
  expect_refused({"model.layers.2.mlp.up_proj.weight", "no place"});
}

TEST_F(ExecutorTest, BrokenWeightsFailTheStepWithAName) {
  options_.random_weights = false;
  write_weights(tensors(), "model.layers.1.mlp.down_proj.weight");
  const auto executor = make();
  StepPlan plan;
  StepResult result;
  add_text(plan, {1, 2}, 0, 2, 0);
  try {
    executor->execute(plan, result);
    FAIL() << "no error";
  } catch (const ExecutionError& error) {
    EXPECT_NE(std::string(error.what()).find("not finite"), std::string::npos) << error.what();
  }
}

TEST_F(ExecutorTest, TokensThatTheModelLacksFailTheStepOnly) {
  const auto executor = make();
  StepPlan plan;
  StepResult result;
  for (const TokenId token : {-1, 300, std::numeric_limits<TokenId>::max()}) {
    plan.clear();
    add_text(plan, {token}, 0, 1, 0);
    EXPECT_THROW(executor->execute(plan, result), ExecutionError);
    plan.clear();
    add_text(plan, {5}, 0, 1, 0);
    plan.samples[0].given = token;
    if (token > 0) {
      EXPECT_THROW(executor->execute(plan, result), ExecutionError);
    }
  }
  plan.clear();
  add_text(plan, {5}, 0, 1, 0);
  plan.rows[0].position = 512;
  EXPECT_THROW(executor->execute(plan, result), ExecutionError);
  plan.rows[0].position = 511;
  executor->execute(plan, result);
  EXPECT_EQ(result.samples.size(), 1U);
  plan.clear();
  executor->execute(plan, result);  // nothing to do
  EXPECT_TRUE(result.samples.empty());
}

TEST_F(ExecutorTest, PlansThatBreakTheContractAreOurMistake) {
  options_.threads = 1;  // death tests fork
  const auto executor = make();
  const auto dies = [&](const std::function<void(StepPlan&)>& change, const char* message) {
    StepPlan plan;
    StepResult result;
    add_text(plan, {1, 2, 3}, 0, 3, 0);
    change(plan);
    EXPECT_DEATH(executor->execute(plan, result), message);
  };
  dies([](StepPlan& plan) { plan.items.clear(); }, "sees no token");
  dies([](StepPlan& plan) { plan.items[0].row_end = 4; }, "rows");
  dies([](StepPlan& plan) { plan.items[0].num_tokens = 17; }, "page entry");
  dies([](StepPlan& plan) { plan.items[0].num_tokens = 2; }, "causal item");
  dies([](StepPlan& plan) { plan.pages[0] = 1 << 20; }, "page entry");
  dies([](StepPlan& plan) { plan.rows[1].offset = 16; }, "slot");
  dies([](StepPlan& plan) { plan.samples[0].row = 3; }, "sample 0");
}

}  // namespace
}  // namespace multiverse
