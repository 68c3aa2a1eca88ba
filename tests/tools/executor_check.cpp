// Drives an executor from outside: reads step plans as JSON lines, prints their results as JSON lines.
//   executor_check MODEL_DIR [--dtype D] [--threads N] [--kv-bytes N] [--max-rows N] [--random] [--device D]
//                [--deterministic]
// A plan: {"rows": [[token, position, page, offset], …], "pages": […],
//          "items": [[first_page, num_tokens, row_begin, row_end, causal], …],
//          "samples": [{"row", "given", "top_logprobs", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
//                       "presence_penalty", "frequency_penalty", "logit_bias": [[token, bias], …], "banned", "allowed",
//                       "prompt", "generated", "seed", "branch", "index"}, …]}, all but `row` optional in a sample.
// The first line printed describes the executor; then one line a plan: {"samples": [{"token", "logprob", "top"}, …]},
// or {"error": …}.
#include <iostream>
#include <list>
#include <nlohmann/json.hpp>
#include <string>

#include "multiverse/model/torch_executor.h"

namespace {

using Json = nlohmann::json;

// What a plan's samples point to.
struct Storage {
  std::list<multiverse::SamplingParams> params;
  std::list<std::vector<multiverse::TokenId>> tokens;
  std::list<std::vector<std::uint64_t>> masks;
};

multiverse::SampleRequest read_sample(const Json& json, std::int32_t vocab_size, Storage& storage) {
  multiverse::SamplingParams& params = storage.params.emplace_back();
  params.temperature = json.value("temperature", 0.0F);
  params.top_k = json.value("top_k", 0);
  params.top_p = json.value("top_p", 1.0F);
  params.min_p = json.value("min_p", 0.0F);
  params.repetition_penalty = json.value("repetition_penalty", 1.0F);
  params.presence_penalty = json.value("presence_penalty", 0.0F);
  params.frequency_penalty = json.value("frequency_penalty", 0.0F);
  for (const Json& pair : json.value("logit_bias", Json::array())) params.logit_bias.emplace_back(pair[0], pair[1]);

  multiverse::SampleRequest sample;
  sample.row = json.at("row");
  sample.params = &params;
  sample.key = {json.value("seed", std::uint64_t{0}), json.value("branch", std::uint64_t{0}), json.value("index", 0U)};
  sample.given = json.value("given", -1);
  sample.top_logprobs = json.value("top_logprobs", -1);
  const auto keep = [&](const char* key) -> std::span<const multiverse::TokenId> {
    return storage.tokens.emplace_back(json.value(key, std::vector<multiverse::TokenId>{}));
  };
  sample.banned = keep("banned");
  sample.prompt_history = {keep("prompt")};
  sample.generated_history = {keep("generated")};
  if (json.contains("allowed")) {
    auto& mask = storage.masks.emplace_back((static_cast<std::size_t>(vocab_size) + 63) / 64, 0);
    for (const std::size_t token : json["allowed"].get<std::vector<std::size_t>>()) {
      mask.at(token / 64) |= std::uint64_t{1} << (token % 64);
    }
    sample.allowed = mask;
  }
  return sample;
}

multiverse::StepPlan read_plan(const Json& json, std::int32_t vocab_size, Storage& storage) {
  multiverse::StepPlan plan;
  for (const Json& row : json.at("rows")) plan.rows.push_back({row[0], row[1], row[2], row[3]});
  plan.pages = json.at("pages").get<std::vector<multiverse::PageId>>();
  for (const Json& item : json.at("items")) {
    plan.items.push_back({item[0], item[1], item[2], item[3], item[4].get<bool>()});
  }
  for (const Json& sample : json.at("samples")) plan.samples.push_back(read_sample(sample, vocab_size, storage));
  return plan;
}

Json to_json(const multiverse::StepResult& result) {
  Json samples = Json::array();
  for (const multiverse::SampleResult& sample : result.samples) {
    Json top = Json::array();
    for (const auto& [token, logprob] : sample.top) top.push_back({token, logprob});
    samples.push_back({{"token", sample.token}, {"logprob", sample.logprob}, {"top", std::move(top)}});
  }
  return {{"samples", std::move(samples)}};
}

int run(const multiverse::TorchExecutorOptions& options) {
  auto made = multiverse::make_torch_executor(options);
  if (!made.ok()) {
    std::cout << Json{{"error", made.error().message}} << std::endl;
    return 1;
  }
  multiverse::Executor& executor = *made.value();
  const multiverse::ExecutorInfo& info = executor.info();
  std::cout << Json{{"model_type", info.model_type},     {"vocab_size", info.vocab_size},
                    {"num_pages", info.num_pages},       {"max_rows", info.max_rows},
                    {"max_position", info.max_position}, {"weight_bytes", info.weight_bytes},
                    {"kv_bytes", info.kv_bytes}}
            << std::endl;
  multiverse::StepResult result;
  for (std::string line; std::getline(std::cin, line);) {
    try {
      Storage storage;
      executor.execute(read_plan(Json::parse(line), info.vocab_size, storage), result);
      std::cout << to_json(result) << std::endl;
    } catch (const std::exception& error) {
      std::cout << Json{{"error", error.what()}} << std::endl;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  multiverse::TorchExecutorOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (argument == "--dtype") {
      options.dtype = value();
    } else if (argument == "--threads") {
      options.threads = std::stoi(value());
    } else if (argument == "--kv-bytes") {
      options.kv_cache_bytes = std::stoll(value());
    } else if (argument == "--max-rows") {
      options.max_rows = std::stoi(value());
    } else if (argument == "--device") {
      options.device = value();
    } else if (argument == "--deterministic") {
      options.deterministic = true;
    } else if (argument == "--random") {
      options.random_weights = true;
    } else {
      options.model_dir = argument;
    }
  }
  if (options.model_dir.empty()) {
    std::cerr << "usage: executor_check MODEL_DIR [--dtype D] [--threads N] [--kv-bytes N] [--max-rows N] [--random] "
                 "[--device D] [--deterministic]\n";
    return 2;
  }
  return run(options);
}
