#include "model/cpu_executor.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "multiverse/kernels/attention.h"
#include "multiverse/kernels/elementwise.h"
#include "multiverse/kernels/linear.h"

#include "model/model_type.h"
#include "model/plan_check.h"

namespace multiverse {
namespace {

// Logits of sampled rows are made and used in blocks of at most this size.
constexpr std::int64_t kLogitBlockBytes = std::int64_t{32} << 20;
// Rows of a task between the linear layers; fewer rows than this are not worth waking a thread.
constexpr std::int64_t kRowsPerTask = 8;

struct CpuWeights final : LoadedWeights {
  explicit CpuWeights(ModelWeights loaded) : weights(std::move(loaded)) {}
  ModelWeights weights;
};

template <class T>
void grow(std::vector<T>& buffer, std::int64_t size) {
  if (buffer.size() < static_cast<std::size_t>(size)) buffer.resize(static_cast<std::size_t>(size));
}

}  // namespace

CpuExecutor::CpuExecutor(ModelConfig config, ModelWeights weights, KvPool pool, std::int32_t max_rows, int threads)
    : config_(std::move(config)),
      weight_type_(weights.lm_head.matrix.type),
      weights_(std::move(weights)),
      pool_(std::move(pool)),
      rope_(config_),
      isa_(kernels::best_isa()),
      threads_(threads) {
  info_.model_type = model_type(config_.architecture);
  info_.vocab_size = static_cast<std::int32_t>(config_.vocab_size);
  info_.num_pages = pool_.num_pages();
  info_.max_rows = max_rows;
  info_.max_position = static_cast<std::int32_t>(config_.max_position);
  info_.weight_bytes = weights_.bytes;
  info_.kv_bytes = pool_.bytes();
  const std::size_t scratch = kernels::attention_scratch_floats(static_cast<std::int32_t>(config_.head_dim));
  scratch_.resize(scratch * static_cast<std::size_t>(threads_.size()));
  samplers_.resize(static_cast<std::size_t>(threads_.size()));
}

void CpuExecutor::execute(const StepPlan& plan, StepResult& result) {
  check_plan(plan, info_);
  result.samples.resize(plan.samples.size());
  if (plan.rows.empty()) return;
  const auto rows = static_cast<std::int64_t>(plan.rows.size());
  try {
    reserve(rows);
  } catch (const std::bad_alloc&) {
    throw ExecutionError(concat("out of memory for a step of ", rows, " rows"));
  }
  embed(plan);
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    attend(plan, layer);
    feed_forward(rows, weights_.layers[static_cast<std::size_t>(layer)]);
  }
  sample(plan, result);
}

Result<std::unique_ptr<LoadedWeights>> CpuExecutor::load_weights(const std::string& model_dir) {
  const Result<ModelConfig> config = ModelConfig::load(model_dir);
  if (!config.ok()) return config.error();
  if (const auto difference = config_.difference(config.value())) {
    return invalid_argument(concat(model_dir, "/config.json is of another model than the one that is served: ",
                                   *difference, "; other shapes want a restart"),
                            "path");
  }
  const char* type = weight_type_ == kernels::WeightType::kFloat32 ? "float32" : "bfloat16";
  Result<ModelWeights> weights = multiverse::load_weights(config_, model_dir, type);
  if (!weights.ok()) return weights.error();
  return std::unique_ptr<LoadedWeights>(std::make_unique<CpuWeights>(std::move(weights).value()));
}

void CpuExecutor::use_weights(std::unique_ptr<LoadedWeights> weights) {
  auto* loaded = dynamic_cast<CpuWeights*>(weights.get());
  CHECK(loaded != nullptr, "the weights are not of this executor");
  weights_ = std::move(loaded->weights);
}

void CpuExecutor::reserve(std::int64_t rows) {
  grow(hidden_, rows * config_.hidden_size);
  grow(normed_, rows * config_.hidden_size);
  grow(qkv_, rows * (config_.num_heads + 2 * config_.num_kv_heads) * config_.head_dim);
  grow(attention_, rows * config_.num_heads * config_.head_dim);
  grow(inner_, rows * config_.intermediate_size);
  grow(angles_, rows * config_.head_dim);
}

template <class Body>
void CpuExecutor::for_rows(std::int64_t rows, const Body& body) {
  threads_.for_each((rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task, int) {
    const std::int64_t end = std::min(rows, (task + 1) * kRowsPerTask);
    for (std::int64_t row = task * kRowsPerTask; row < end; ++row) body(row);
  });
}

void CpuExecutor::embed(const StepPlan& plan) {
  for_rows(static_cast<std::int64_t>(plan.rows.size()), [&](std::int64_t row) {
    const Row& entry = plan.rows[static_cast<std::size_t>(row)];
    weights_.embed(entry.token, hidden_.data() + row * config_.hidden_size);
    float* angles = angles_.data() + row * config_.head_dim;
    rope_.angles(entry.position, angles, angles + config_.head_dim / 2);
  });
  spans_.clear();
  for (const AttentionItem& item : plan.items) {
    spans_.push_back({item.first_page, item.num_tokens, item.row_begin, item.row_end, item.causal});
  }
}

void CpuExecutor::normalize(const std::vector<float>& weight, std::int64_t rows) {
  const std::int64_t hidden = config_.hidden_size;
  for_rows(rows, [&](std::int64_t row) {
    kernels::rms_norm(hidden_.data() + row * hidden, weight.data(), static_cast<float>(config_.rms_norm_eps), hidden,
                      normed_.data() + row * hidden, isa_);
  });
}

void CpuExecutor::linear(const LinearWeights& weights, const std::vector<float>& x, std::vector<float>& y,
                         std::int64_t rows, kernels::Epilogue epilogue, std::int64_t columns) {
  kernels::linear(weights.matrix,
                  {.x = x.data(),
                   .bias = weights.bias_or_null(),
                   .y = y.data(),
                   .rows = rows,
                   .x_stride = weights.matrix.inputs,
                   .y_stride = columns,
                   .y_columns = columns,
                   .epilogue = epilogue},
                  isa_, threads_);
}

void CpuExecutor::attend(const StepPlan& plan, std::int64_t layer) {
  const LayerWeights& weights = weights_.layers[static_cast<std::size_t>(layer)];
  const auto rows = static_cast<std::int64_t>(plan.rows.size());
  normalize(weights.attention_norm, rows);
  linear(weights.qkv, normed_, qkv_, rows, kernels::Epilogue::kStore, weights.qkv.matrix.outputs);
  write_keys_and_values(plan, layer);  // of all rows, before any row attends
  kernels::segment_attention({.queries = qkv_.data(),
                              .out = attention_.data(),
                              .query_stride = weights.qkv.matrix.outputs,
                              .out_stride = config_.num_heads * config_.head_dim,
                              .num_rows = static_cast<std::int32_t>(rows),
                              .num_heads = static_cast<std::int32_t>(config_.num_heads),
                              .kv = pool_.layer(layer),
                              .pages = plan.pages.data(),
                              .spans = spans_.data(),
                              .num_spans = static_cast<std::int32_t>(spans_.size())},
                             scratch_.data(), isa_, threads_);
  linear(weights.output, attention_, hidden_, rows, kernels::Epilogue::kAdd, config_.hidden_size);
}

void CpuExecutor::write_keys_and_values(const StepPlan& plan, std::int64_t layer) {
  const LayerWeights& weights = weights_.layers[static_cast<std::size_t>(layer)];
  const kernels::PagedKv pages = pool_.layer(layer);
  const std::int64_t head_dim = config_.head_dim;
  const std::int64_t heads = config_.num_heads;
  const std::int64_t kv_heads = config_.num_kv_heads;
  for_rows(static_cast<std::int64_t>(plan.rows.size()), [&](std::int64_t row) {
    float* query = qkv_.data() + row * (heads + 2 * kv_heads) * head_dim;
    float* key = query + heads * head_dim;
    const float* value = key + kv_heads * head_dim;
    for (std::int64_t head = 0; config_.qk_norm && head < heads + kv_heads; ++head) {
      const std::vector<float>& norm = head < heads ? weights.q_norm : weights.k_norm;
      float* x = query + head * head_dim;
      kernels::rms_norm(x, norm.data(), static_cast<float>(config_.rms_norm_eps), head_dim, x, isa_);
    }
    const float* cosine = angles_.data() + row * head_dim;
    kernels::rotate_heads(query, heads + kv_heads, head_dim, cosine, cosine + head_dim / 2);
    const Row& entry = plan.rows[static_cast<std::size_t>(row)];
    pages.write(entry.page, entry.offset, key, value);
  });
}

void CpuExecutor::feed_forward(std::int64_t rows, const LayerWeights& layer) {
  normalize(layer.mlp_norm, rows);
  linear(layer.gate_up, normed_, inner_, rows, kernels::Epilogue::kSiluMul, config_.intermediate_size);
  linear(layer.down, inner_, hidden_, rows, kernels::Epilogue::kAdd, config_.hidden_size);
}

void CpuExecutor::sample(const StepPlan& plan, StepResult& result) {
  std::vector<std::int32_t> order(plan.samples.size());  // samples by row, so that a row's logits are made once
  std::iota(order.begin(), order.end(), 0);
  const auto row_of = [&](std::int32_t sample) { return plan.samples[static_cast<std::size_t>(sample)].row; };
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return row_of(a) < row_of(b); });

  const std::int64_t block_rows =
      std::max<std::int64_t>(1, kLogitBlockBytes / (config_.vocab_size * static_cast<std::int64_t>(sizeof(float))));
  std::vector<std::int32_t> block;
  std::int64_t rows_in_block = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (block.empty() || row_of(block.back()) != row_of(order[i])) ++rows_in_block;
    if (rows_in_block > block_rows) {
      sample_rows(plan, block, result);
      block.clear();
      rows_in_block = 1;
    }
    block.push_back(order[i]);
  }
  if (!block.empty()) sample_rows(plan, block, result);
}

// The samples of `order`, sorted by row, whose rows' logits fit one block.
void CpuExecutor::sample_rows(const StepPlan& plan, const std::vector<std::int32_t>& order, StepResult& result) {
  std::vector<std::int32_t> rows;
  std::vector<std::size_t> place(order.size());  // of each sample's row in `rows`
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int32_t row = plan.samples[static_cast<std::size_t>(order[i])].row;
    if (rows.empty() || rows.back() != row) rows.push_back(row);
    place[i] = rows.size() - 1;
  }
  const auto num_rows = static_cast<std::int64_t>(rows.size());
  const std::int64_t hidden = config_.hidden_size;
  for_rows(num_rows, [&](std::int64_t i) {
    kernels::rms_norm(hidden_.data() + rows[static_cast<std::size_t>(i)] * hidden, weights_.final_norm.data(),
                      static_cast<float>(config_.rms_norm_eps), hidden, normed_.data() + i * hidden, isa_);
  });
  grow(logits_, num_rows * config_.vocab_size);
  linear(weights_.lm_head, normed_, logits_, num_rows, kernels::Epilogue::kStore, config_.vocab_size);

  std::vector<RowLogits> logits(rows.size());
  std::atomic<std::int32_t> broken{-1};
  threads_.for_each(num_rows, [&](std::int64_t i, int) {
    RowLogits& row = logits[static_cast<std::size_t>(i)];
    row.logits = logits_.data() + i * config_.vocab_size;
    row.vocab_size = info_.vocab_size;
    row.softmax = kernels::softmax_sum(row.logits, config_.vocab_size, isa_);
    if (!row.valid()) broken.store(rows[static_cast<std::size_t>(i)]);
  });
  if (broken.load() >= 0) {
    throw ExecutionError(concat("the logits of row ", broken.load(), " (token ",
                                plan.rows[static_cast<std::size_t>(broken.load())].token,
                                ") are not finite: the weights are broken or out of float32's range"));
  }
  threads_.for_each(static_cast<std::int64_t>(order.size()), [&](std::int64_t i, int thread) {
    const auto index = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
    samplers_[static_cast<std::size_t>(thread)].sample(logits[place[static_cast<std::size_t>(i)]], plan.samples[index],
                                                       result.samples[index]);
  });
}

}  // namespace multiverse
