#include "model/cuda/cuda_executor.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "multiverse/base/log.h"
#include "multiverse/kernels/cuda/layers.h"

#include "model/model_type.h"
#include "model/plan_check.h"
#include "model/rope.h"

namespace multiverse {
namespace {

using kernels::cuda::AttentionPlan;
using kernels::cuda::Bf16;
using kernels::cuda::CacheType;
using kernels::cuda::LinearOutput;

// Rows to which a step is padded, for each of which a graph is captured.
constexpr std::array<std::int32_t, 11> kGraphRows = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128};
constexpr std::int32_t kMaxGraphRows = kGraphRows.back();
// Rows whose logits are made and used at once, and draws at once.
constexpr std::int32_t kMaxLogitRows = kMaxGraphRows;
static_assert(kMaxLogitRows >= kMaxGraphRows);

constexpr std::int64_t kPartBytes = std::int64_t{256} << 20;  // attention's parts
constexpr std::int64_t kGraphInputs = std::int64_t{4} << 20;  // a step's small arrays; larger steps run without a graph
constexpr std::int64_t kMargin = std::int64_t{1} << 30;       // left to libraries and graphs
constexpr std::int64_t kDefaultContexts = 64;
constexpr int kBlocksPerMultiprocessor = 2;  // of the attention kernel

std::int32_t padded_rows(std::int32_t rows) {
  const auto* found = std::lower_bound(kGraphRows.begin(), kGraphRows.end(), rows);
  return found == kGraphRows.end() ? rows : *found;
}

std::int32_t most_outputs(const DeviceWeights& weights) {
  std::int32_t most = weights.lm_head.outputs;
  for (const DeviceLayer& layer : weights.layers) {
    most = std::max({most, layer.qkv.outputs, layer.gate_up.outputs, layer.down.outputs});
  }
  return most;
}

CacheType cache_type(const std::string& dtype) {
  return dtype == "fp8" ? CacheType::kFp8 : dtype == "float16" ? CacheType::kFp16 : CacheType::kBf16;
}

Status check_device(const Device& device, const TorchExecutorOptions& options) {
  constexpr int kLeastForFp8 = 89;
  if (options.kv_cache_dtype != "fp8" || device.compute_capability() >= kLeastForFp8) return ok_status();
  return Error{ErrorCode::kUnsupported,
               concat("kv_cache_dtype is 'fp8', for which ", device.name(), " of compute capability ",
                      device.compute_capability() / 10, ".", device.compute_capability() % 10,
                      " has no instructions (8.9 is needed); take auto, bfloat16 or float16"),
               "kv_cache_dtype"};
}

Status check_model(const ModelConfig& config) {
  if (config.head_dim != 64 && config.head_dim != 128) {
    return Error{ErrorCode::kUnsupported,
                 concat("the model's head_dim is ", config.head_dim, "; on a GPU 64 and 128 are supported"), "model"};
  }
  if (config.num_heads / config.num_kv_heads > kernels::cuda::kMaxTileRows) {
    return Error{ErrorCode::kUnsupported,
                 concat("the model has ", config.num_heads, " query heads for ", config.num_kv_heads,
                        " KV heads; at most ", kernels::cuda::kMaxTileRows, " for each are supported"),
                 "model"};
  }
  return ok_status();
}

}  // namespace

CudaExecutor::CudaExecutor(ModelConfig config, std::unique_ptr<Device> device, DeviceWeights weights,
                           const TorchExecutorOptions& options)
    : config_(std::move(config)),
      device_(std::move(device)),
      weights_(std::move(weights)),
      linear_layers_(*device_, most_outputs(weights_), options.deterministic),
      inputs_(*device_),
      large_inputs_(*device_),
      sampler_(*device_, static_cast<std::int32_t>(config_.vocab_size), kMaxLogitRows) {
  info_.model_type = model_type(config_.architecture);
  info_.vocab_size = static_cast<std::int32_t>(config_.vocab_size);
  info_.max_rows = options.max_rows;
  info_.max_position = static_cast<std::int32_t>(config_.max_position);
  info_.weight_bytes = weights_.bytes;
  shape_ = {static_cast<std::int32_t>(config_.num_heads), static_cast<std::int32_t>(config_.num_kv_heads),
            static_cast<std::int32_t>(config_.head_dim), cache_type(options.kv_cache_dtype)};
  cutting_.group = shape_.num_heads / shape_.num_kv_heads;
  cutting_.num_kv_heads = shape_.num_kv_heads;
  cutting_.blocks = kBlocksPerMultiprocessor * device_->multiprocessors();
  cutting_.max_parts = kPartBytes / (std::int64_t{shape_.num_heads} * (shape_.head_dim + 2) * 4);
  cutting_.deterministic = options.deterministic;
  allocate_buffers();
  allocate_pool(options.kv_cache_bytes);
  tune(options.tuning_file, options.deterministic);
  capture_graphs();
}

void CudaExecutor::allocate_buffers() {
  const std::int64_t rows = std::max(info_.max_rows, padded_rows(info_.max_rows));
  const std::int64_t hidden = config_.hidden_size, inner = config_.intermediate_size, dim = config_.head_dim;
  const std::int64_t heads = config_.num_heads, all_heads = heads + 2 * config_.num_kv_heads;
  constexpr std::int64_t kFloat = sizeof(float), kBf16 = sizeof(Bf16);
  buffers_.hidden = device_->allocate(rows * hidden * kFloat);
  buffers_.angles = device_->allocate(rows * dim * kFloat);
  buffers_.normed = device_->allocate(rows * hidden * kBf16);
  buffers_.qkv = device_->allocate(rows * all_heads * dim * kBf16);
  buffers_.queries = device_->allocate(rows * heads * dim * kBf16);
  buffers_.attention = device_->allocate(rows * heads * dim * kBf16);
  buffers_.gate_up = device_->allocate(rows * 2 * inner * kBf16);
  buffers_.inner = device_->allocate(rows * inner * kBf16);
  buffers_.delta = device_->allocate(rows * hidden * kBf16);
  buffers_.part_values = device_->allocate(cutting_.max_parts * heads * dim * kFloat);
  buffers_.part_sums = device_->allocate(cutting_.max_parts * heads * 2 * kFloat);
  buffers_.logits = device_->allocate(kMaxLogitRows * config_.vocab_size * kFloat);
  inputs_.begin(kGraphInputs);

  const Rope rope(config_);
  const std::vector<float>& frequencies = rope.frequencies();
  const auto bytes = static_cast<std::int64_t>(frequencies.size()) * kFloat;
  frequencies_ = device_->allocate(bytes);
  const Device::Memory pinned = device_->allocate_pinned(bytes);
  std::copy(frequencies.begin(), frequencies.end(), as<float>(pinned));
  device_->upload(frequencies_.get(), pinned.get(), bytes);
  device_->synchronize();
}

void CudaExecutor::allocate_pool(std::int64_t bytes) {
  const std::int64_t page_bytes = shape_.layout().page_bytes() * config_.num_layers;
  const std::int64_t available = device_->free_bytes() - kMargin;
  std::int64_t pages = bytes / page_bytes;
  if (bytes == 0) {
    pages = std::min(available / page_bytes, kDefaultContexts * ((config_.max_position + 15) / kPageTokens));
  }
  if (bytes > available || pages < 1) {
    throw ExecutionError(concat("the KV pool: kv_cache_bytes is ", bytes, "; ", device_->name(), " has ",
                                std::max<std::int64_t>(0, available), " bytes left beside weights (", weights_.bytes,
                                ") and working memory, and a page needs ", page_bytes));
  }
  info_.num_pages = static_cast<std::int32_t>(std::min<std::int64_t>(pages, std::int64_t{1} << 26));
  info_.kv_bytes = info_.num_pages * page_bytes;
  pool_ = device_->allocate(info_.kv_bytes);
}

// Each size runs once before it is captured, with a plan of padding alone.
void CudaExecutor::capture_graphs() {
  const auto begin = std::chrono::steady_clock::now();
  for (const std::int32_t rows : kGraphRows) {
    if (rows > padded_rows(info_.max_rows)) break;
    const StepInputs inputs = upload_step({}, {}, {}, inputs_, kMaxGraphRows);
    const auto work = [this, inputs, rows] {
      forward(inputs, rows);
      head(inputs, 0, rows);
    };
    work();
    device_->synchronize();
    graphs_[rows] = device_->capture(work);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  log(LogLevel::kInfo, concat("captured ", graphs_.size(), " graphs of up to ", graphs_.rbegin()->first, " rows in ",
                              seconds.count(), " s"));
}

void CudaExecutor::execute(const StepPlan& plan, StepResult& result) {
  check_plan(plan, info_);
  result.samples.resize(plan.samples.size());
  if (plan.rows.empty()) return;
  try {
    run(plan, result);
  } catch (const ExecutionError&) {
    throw;
  } catch (const std::exception& error) {
    throw ExecutionError(
        concat("a step of ", plan.rows.size(), " rows failed on ", device_->name(), ": ", error.what()));
  }
}

void CudaExecutor::run(const StepPlan& plan, StepResult& result) {
  device_->use();
  const auto rows = static_cast<std::int32_t>(plan.rows.size());
  const SamplePlan samples = plan_samples(plan, info_.vocab_size);
  const auto num_logits = static_cast<std::int32_t>(samples.logit_rows.size());
  std::vector<AttentionPass> passes;
  for (std::int32_t row = 0; row < rows; row = passes.back().row_end) {
    passes.push_back(plan_attention(plan, cutting_, row));
  }

  const std::int64_t bytes = step_input_bytes(plan, samples, passes, kMaxGraphRows);
  const auto graph = graphs_.find(padded_rows(rows));
  if (graph != graphs_.end() && passes.size() == 1 && bytes <= inputs_.capacity()) {
    sampler_.begin(samples, upload_step(plan, samples, passes, inputs_, kMaxGraphRows).sampling);
    device_->begin_work();
    graph->second->replay();
    sampler_.draw(as<float>(buffers_.logits), 0, num_logits);
  } else {
    const std::int32_t capacity = std::max(rows, num_logits);
    large_inputs_.begin(step_input_bytes(plan, samples, passes, capacity));
    const StepInputs inputs = upload_step(plan, samples, passes, large_inputs_, capacity);
    sampler_.begin(samples, inputs.sampling);
    device_->begin_work();
    forward(inputs, rows);
    for (std::int32_t first = 0; first < num_logits; first += kMaxLogitRows) {
      const std::int32_t count = std::min(kMaxLogitRows, num_logits - first);
      head(inputs, first, count);
      sampler_.draw(as<float>(buffers_.logits), first, count);
    }
  }
  sampler_.take(plan, result);
}

// The choices of the file, or measured ones, which it then keeps.
void CudaExecutor::tune(const std::string& path, bool deterministic) {
  if (deterministic) return;
  const auto begin = std::chrono::steady_clock::now();
  const TuningFile file(path);
  const std::int32_t max_rows = padded_rows(info_.max_rows);
  std::string key = concat(linear_layers_.tuning_key(), ", ", info_.model_type, ", rows to ", max_rows, ", cache of ",
                           8 * cache_element_bytes(shape_.cache), " bits");
  for (const DeviceMatrix* matrix : {&weights_.layers[0].qkv, &weights_.layers[0].output, &weights_.layers[0].gate_up,
                                     &weights_.layers[0].down, &weights_.lm_head}) {
    key += concat(", ", matrix->outputs, " x ", matrix->inputs);
  }
  const auto known = file.find(key);
  const bool taken = known && linear_layers_.take(*known, max_rows);
  if (!taken) {
    measure_layers(max_rows);
    file.keep(key, linear_layers_.choices());
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  log(LogLevel::kInfo, concat("linear layers ", linear_layers_.summary(), "; ",
                              taken ? concat("as ", path, " says") : concat("tuned in ", seconds.count(), " s")));
}

// As many decoder layers as no cache holds, so that what is timed is reading their weights.
void CudaExecutor::measure_layers(std::int32_t max_rows) {
  const StepInputs inputs = upload_step({}, {}, {}, inputs_, kMaxGraphRows);
  const std::size_t layers = std::min<std::size_t>(weights_.layers.size(), 8);
  const auto tune = [&](LayerKind kind, const auto& compute) {
    linear_layers_.tune(kind, max_rows, [&](std::int32_t rows) {
      for (std::size_t i = 0; i < layers; ++i) compute(weights_.layers[i], rows);
    });
  };
  tune(LayerKind::kHeads, [&](const DeviceLayer& layer, std::int32_t rows) {
    project_heads(inputs, rows, layer, as<unsigned char>(pool_));
  });
  tune(LayerKind::kOutput, [&](const DeviceLayer& layer, std::int32_t rows) {
    add_to_hidden(LayerKind::kOutput, layer.output, layer.output_bias, buffers_.attention, rows);
  });
  tune(LayerKind::kGateUp, [&](const DeviceLayer& layer, std::int32_t rows) { expand(rows, layer); });
  tune(LayerKind::kDown, [&](const DeviceLayer& layer, std::int32_t rows) {
    add_to_hidden(LayerKind::kDown, layer.down, {}, buffers_.inner, rows);
  });
  linear_layers_.tune(LayerKind::kVocabulary, max_rows, [&](std::int32_t rows) { project_vocabulary(rows); });
}

void CudaExecutor::forward(const StepInputs& inputs, std::int32_t rows) {
  delta_pending_ = false;
  kernels::cuda::embed({.embedding = weights_.embedding.data(),
                        .tokens = inputs.tokens,
                        .positions = inputs.positions,
                        .frequencies = as<float>(frequencies_),
                        .hidden = as<float>(buffers_.hidden),
                        .angles = as<float>(buffers_.angles),
                        .rows = rows,
                        .hidden_size = static_cast<std::int32_t>(config_.hidden_size),
                        .head_dim = shape_.head_dim},
                       device_->stream());
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    attend(inputs, rows, layer);
    feed_forward(rows, weights_.layers[static_cast<std::size_t>(layer)]);
  }
}

void CudaExecutor::normalize(const DeviceVector& weight, std::int32_t rows, const std::int32_t* gather) {
  kernels::cuda::norm({.hidden = as<float>(buffers_.hidden),
                       .delta = delta_pending_ ? as<Bf16>(buffers_.delta) : nullptr,
                       .weight = weight.data(),
                       .gather = gather,
                       .out = as<Bf16>(buffers_.normed),
                       .rows = rows,
                       .hidden_size = static_cast<std::int32_t>(config_.hidden_size),
                       .eps = static_cast<float>(config_.rms_norm_eps)},
                      device_->stream());
  if (gather == nullptr) delta_pending_ = false;
}

bool CudaExecutor::own_kernel(LayerKind kind, std::int32_t rows) const {
  return linear_layers_.method(kind, rows) != LayerMethod::kLibrary;
}

void CudaExecutor::linear(LayerKind kind, const DeviceMatrix& weights, const Device::Memory& x, const Device::Memory& y,
                          std::int32_t rows, LinearOutput output) {
  linear_layers_.compute(kind, {.x = as<Bf16>(x),
                                .weights = weights.data(),
                                .y = y.get(),
                                .rows = rows,
                                .outputs = weights.outputs,
                                .inputs = weights.inputs,
                                .output = output,
                                .scratch = {},
                                .heads = {}});
}

void CudaExecutor::multiply(LayerKind kind, const DeviceMatrix& weights, const Device::Memory& x,
                            const Device::Memory& y, std::int32_t rows) {
  if (own_kernel(kind, rows)) {
    linear(kind, weights, x, y, rows, LinearOutput::kBf16);
  } else {
    device_->multiply(as<Bf16>(x), weights.data(), as<Bf16>(y), rows, weights.outputs, weights.inputs);
  }
}

void CudaExecutor::add_to_hidden(LayerKind kind, const DeviceMatrix& weights, const DeviceVector& bias,
                                 const Device::Memory& x, std::int32_t rows) {
  if (own_kernel(kind, rows) && bias.memory == nullptr) {
    linear(kind, weights, x, buffers_.hidden, rows, LinearOutput::kAdd);
    return;
  }
  multiply(kind, weights, x, buffers_.delta, rows);
  if (bias.memory != nullptr) {
    kernels::cuda::add_bias(as<Bf16>(buffers_.delta), bias.data(), rows, weights.outputs, device_->stream());
  }
  delta_pending_ = true;
}

// Queries, and keys and values of all rows, before any row attends.
void CudaExecutor::project_heads(const StepInputs& inputs, std::int32_t rows, const DeviceLayer& layer,
                                 unsigned char* kv) {
  const kernels::cuda::QkvArgs heads = {.qkv = as<Bf16>(buffers_.qkv),
                                        .bias = layer.qkv_bias.data(),
                                        .q_norm = layer.q_norm.data(),
                                        .k_norm = layer.k_norm.data(),
                                        .angles = as<float>(buffers_.angles),
                                        .slots = inputs.slots,
                                        .queries = as<Bf16>(buffers_.queries),
                                        .kv = kv,
                                        .rows = rows,
                                        .num_heads = shape_.num_heads,
                                        .num_kv_heads = shape_.num_kv_heads,
                                        .head_dim = shape_.head_dim,
                                        .eps = static_cast<float>(config_.rms_norm_eps),
                                        .cache = shape_.cache};
  // A norm and a scale are of whole heads, which no thread of the layer has.
  const bool by_elements = heads.q_norm == nullptr && shape_.cache != CacheType::kFp8;
  if (own_kernel(LayerKind::kHeads, rows) && by_elements) {
    linear_layers_.compute(LayerKind::kHeads, {.x = as<Bf16>(buffers_.normed),
                                               .weights = layer.qkv.data(),
                                               .y = nullptr,
                                               .rows = rows,
                                               .outputs = layer.qkv.outputs,
                                               .inputs = layer.qkv.inputs,
                                               .output = LinearOutput::kHeads,
                                               .scratch = {},
                                               .heads = heads});
  } else {
    multiply(LayerKind::kHeads, layer.qkv, buffers_.normed, buffers_.qkv, rows);
    kernels::cuda::split_qkv(heads, device_->stream());
  }
}

void CudaExecutor::attend(const StepInputs& inputs, std::int32_t rows, std::int64_t layer) {
  const DeviceLayer& weights = weights_.layers[static_cast<std::size_t>(layer)];
  auto* kv = as<unsigned char>(pool_) + layer * info_.num_pages * shape_.layout().page_bytes();
  normalize(weights.attention_norm, rows, nullptr);
  project_heads(inputs, rows, weights, kv);
  for (const AttentionPlan* pass : inputs.passes) {
    kernels::cuda::segment_attention({.queries = as<Bf16>(buffers_.queries),
                                      .out = as<Bf16>(buffers_.attention),
                                      .kv = kv,
                                      .plan = pass,
                                      .part_values = as<float>(buffers_.part_values),
                                      .part_sums = as<float>(buffers_.part_sums),
                                      .max_rows = rows,
                                      .shape = shape_},
                                     cutting_.blocks, device_->stream());
  }
  add_to_hidden(LayerKind::kOutput, weights.output, weights.output_bias, buffers_.attention, rows);
}

void CudaExecutor::feed_forward(std::int32_t rows, const DeviceLayer& layer) {
  normalize(layer.mlp_norm, rows, nullptr);
  expand(rows, layer);
  add_to_hidden(LayerKind::kDown, layer.down, {}, buffers_.inner, rows);
}

void CudaExecutor::expand(std::int32_t rows, const DeviceLayer& layer) {
  if (own_kernel(LayerKind::kGateUp, rows)) {
    linear(LayerKind::kGateUp, layer.gate_up, buffers_.normed, buffers_.inner, rows, LinearOutput::kSiluMul);
  } else {
    multiply(LayerKind::kGateUp, layer.gate_up, buffers_.normed, buffers_.gate_up, rows);
    kernels::cuda::silu_mul(as<Bf16>(buffers_.gate_up), as<Bf16>(buffers_.inner), rows, layer.down.inputs,
                            device_->stream());
  }
}

void CudaExecutor::head(const StepInputs& inputs, std::int32_t first_logit, std::int32_t num_logits) {
  normalize(weights_.final_norm, num_logits, inputs.logit_rows + first_logit);
  project_vocabulary(num_logits);
}

void CudaExecutor::project_vocabulary(std::int32_t num_logits) {
  if (own_kernel(LayerKind::kVocabulary, num_logits)) {
    linear(LayerKind::kVocabulary, weights_.lm_head, buffers_.normed, buffers_.logits, num_logits,
           LinearOutput::kFloat);
  } else {
    device_->multiply_to_float(as<Bf16>(buffers_.normed), weights_.lm_head.data(), as<float>(buffers_.logits),
                               num_logits, weights_.lm_head.outputs, weights_.lm_head.inputs);
  }
}

Result<std::unique_ptr<Executor>> make_cuda_executor(ModelConfig config, std::unique_ptr<Device> device,
                                                     const TorchExecutorOptions& options) {
  if (const Status checked = check_model(config); !checked.ok()) return checked.error();
  if (const Status checked = check_device(*device, options); !checked.ok()) return checked.error();
  const std::string name = device->name();
  try {
    device->use();
    Result<DeviceWeights> weights = options.random_weights ? random_device_weights(*device, config)
                                                           : load_device_weights(*device, config, options.model_dir);
    if (!weights.ok()) return weights.error();
    std::unique_ptr<Executor> executor =
        std::make_unique<CudaExecutor>(std::move(config), std::move(device), std::move(weights).value(), options);
    const ExecutorInfo& info = executor->info();
    log(LogLevel::kInfo, concat("model ", info.model_type, " on ", name, ": ", info.weight_bytes / 1'000'000,
                                " MB of weights, ", info.kv_bytes / 1'000'000, " MB of keys and values, ",
                                info.num_pages, " pages of ", kPageTokens, " tokens"));
    return executor;
  } catch (const std::exception& error) {
    return Error{ErrorCode::kInternal, concat("the model can't be set up on ", name, ": ", error.what()), "device"};
  }
}

}  // namespace multiverse
