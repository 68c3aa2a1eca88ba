// Times the GPU's kernels alone, each beside the bytes that it must read: cuda_bench [linear] [attention] [small]
// Every figure is a launch's share of a replayed graph of many; weights rotate so that no cache keeps them.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "multiverse/kernels/cuda/attention.h"
#include "multiverse/kernels/cuda/layers.h"
#include "multiverse/kernels/cuda/linear.h"
#include "multiverse/kernels/cuda/sampling.h"

#include "model/cuda/attention_plan.h"

namespace multiverse {
namespace {

using namespace kernels::cuda;

constexpr double kReadRate = 3.05e12;  // bytes a second, as measured on one H100 80GB

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

class Memory {
 public:
  explicit Memory(std::int64_t bytes) {
    check(cudaMalloc(&data_, static_cast<std::size_t>(bytes)));
    check(cudaMemset(data_, 0, static_cast<std::size_t>(bytes)));
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class T>
  T* as(std::int64_t element = 0) const {
    return static_cast<T*>(data_) + element;
  }
  // Random bfloat16 numbers, by the kernel that makes random weights.
  void randomize(std::int64_t elements) const {
    const Memory table(4096 * 4), places(4 * 4096);
    cudaStream_t stream = nullptr;
    check(cudaStreamCreate(&stream));
    std::vector<float> numbers(4096);
    for (std::size_t i = 0; i < numbers.size(); ++i)
      numbers[i] = 0.02F * static_cast<float>(static_cast<int>(i * 2654435761U >> 20) % 200 - 100) / 50.0F;
    std::vector<std::uint32_t> starts(4096);
    for (std::size_t i = 0; i < starts.size(); ++i) starts[i] = static_cast<std::uint32_t>(i * 40503U);
    check(cudaMemcpy(table.as<float>(), numbers.data(), numbers.size() * 4, cudaMemcpyHostToDevice));
    check(cudaMemcpy(places.as<float>(), starts.data(), starts.size() * 4, cudaMemcpyHostToDevice));
    fill_from_table(table.as<float>(), 4096, places.as<std::uint32_t>(), as<Bf16>(), 4096,
                    static_cast<std::int32_t>(elements / 4096), stream);
    check(cudaStreamSynchronize(stream));
    check(cudaStreamDestroy(stream));
  }

 private:
  void* data_ = nullptr;
};

// Microseconds a call of work(i, stream), of `count` in a graph; the median of several replays.
double measure(int count, const std::function<void(int, Stream)>& work) {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  work(0, stream);
  check(cudaStreamSynchronize(stream));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < count; ++i) work(i, stream);
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int replay = 0; replay < 9; ++replay) {
    check(cudaEventRecord(begin, stream));
    check(cudaGraphLaunch(exec, stream));
    check(cudaEventRecord(end, stream));
    check(cudaEventSynchronize(end));
    float milliseconds = 0.0F;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (replay >= 2) times.push_back(milliseconds);
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]) * 1e3 / count;
}

void print(const std::string& what, double microseconds, double bytes) {
  const double floor = bytes / kReadRate * 1e6;
  std::printf("%-52s %9.2f us   floor %9.2f us   x %.2f\n", what.c_str(), microseconds, floor, microseconds / floor);
  std::fflush(stdout);
}

void bench_linear() {
  struct Layer {
    const char* name;
    std::int32_t outputs, inputs;
    LinearOutput output;
  };
  using enum LinearMethod;
  const std::pair<LinearMethod, std::int32_t> cases[] = {{kTiles, 1},  {kTiles, 8},   {kTiles, 16},  {kShares, 1},
                                                         {kShares, 8}, {kShares, 16}, {kShares, 32}, {kShares, 64}};
  const Layer layers[] = {
      {"0.5b qkv", 1152, 896, LinearOutput::kBf16},        {"0.5b out", 896, 896, LinearOutput::kAdd},
      {"0.5b gate up", 9728, 896, LinearOutput::kSiluMul}, {"0.5b down", 896, 4864, LinearOutput::kAdd},
      {"0.5b head", 151936, 896, LinearOutput::kFloat},    {"7b qkv", 4608, 3584, LinearOutput::kBf16},
      {"7b out", 3584, 3584, LinearOutput::kAdd},          {"7b gate up", 37888, 3584, LinearOutput::kSiluMul},
      {"7b down", 3584, 18944, LinearOutput::kAdd},        {"32b qkv", 7168, 5120, LinearOutput::kBf16},
      {"32b out", 5120, 5120, LinearOutput::kAdd},         {"32b gate up", 55296, 5120, LinearOutput::kSiluMul},
      {"32b down", 5120, 27648, LinearOutput::kAdd}};
  int blocks = 0;
  check(cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, 0));
  const Memory partials(linear_partials(blocks) * 4), arrivals(linear_arrivals(160000) * 4);
  const LinearScratch scratch = {partials.as<float>(), arrivals.as<std::int32_t>(), blocks};
  for (const Layer& layer : layers) {
    const std::int64_t size = std::int64_t{layer.outputs} * layer.inputs;
    const auto copies = static_cast<int>(std::max<std::int64_t>(1, (std::int64_t{400} << 20) / (size * 2)));
    const Memory weights(size * 2 * copies + 8192), x(64 * 32768 * 2), y(64 * 160000 * 4);
    weights.randomize(size * copies);
    x.randomize(64 * 32768);
    const int count = std::max(copies, 8);
    for (const auto& measured : cases) {
      const LinearMethod method = measured.first;
      const std::int32_t rows = measured.second;
      const double time = measure(count, [&](int i, Stream stream) {
        linear({x.as<Bf16>(),
                weights.as<Bf16>(i % copies * size),
                y.as<float>(),
                rows,
                layer.outputs,
                layer.inputs,
                layer.output,
                method,
                scratch,
                {}},
               stream);
      });
      print(std::string(layer.name) + (method == kTiles ? " by tiles, " : " by shares, ") + std::to_string(rows) +
                " rows",
            time, static_cast<double>(size) * 2.0);
    }
  }
}

template <class T>
std::unique_ptr<Memory> send(const std::vector<T>& values) {
  auto memory = std::make_unique<Memory>(static_cast<std::int64_t>(values.size() * sizeof(T)) + 16);
  check(cudaMemcpy(memory->template as<T>(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return memory;
}

void bench_attention_case(const AttentionShape& shape, std::int32_t rows, std::int32_t shared, std::int32_t own) {
  int multiprocessors = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  StepPlan plan;
  plan.rows.resize(static_cast<std::size_t>(rows));
  PageId next = 0;
  const auto add = [&](std::int32_t tokens, std::int32_t begin, std::int32_t end) {
    plan.items.push_back({static_cast<std::int32_t>(plan.pages.size()), tokens, begin, end, false});
    for (std::int32_t i = 0; i < tokens; i += 16) plan.pages.push_back(next++);
  };
  if (shared > 0) add(shared, 0, rows);
  for (std::int32_t row = 0; own > 0 && row < rows; ++row) add(own, row, row + 1);
  const AttentionCutting cutting = {shape.num_heads / shape.num_kv_heads, shape.num_kv_heads, 2 * multiprocessors,
                                    1 << 20, false};
  const AttentionPass pass = plan_attention(plan, cutting, 0);
  const std::int64_t layer = next * shape.layout().page_bytes();
  // Layers in turn, so that the second-level cache holds none.
  const auto layers = static_cast<int>(std::max<std::int64_t>(1, (std::int64_t{300} << 20) / layer));
  const Memory kv(layer * layers + 8192);
  kv.randomize(layer * layers / 2);
  const std::int64_t elements = std::int64_t{rows} * shape.num_heads * shape.head_dim;
  const Memory queries(elements * 2 + 8192), out(elements * 2);
  queries.randomize(elements / 4096 * 4096 + 4096);
  const auto parts = static_cast<std::int64_t>(pass.row_parts.size());
  const Memory values(parts * shape.num_heads * shape.head_dim * 4), sums(parts * shape.num_heads * 8);
  const auto chunks = send(pass.chunks);
  const auto pages = send(plan.pages), row_first = send(pass.row_first), row_parts = send(pass.row_parts);
  const auto header = send(std::vector<AttentionPlan>{{chunks->as<AttentionChunk>(), pages->as<std::int32_t>(),
                                                       row_first->as<std::int32_t>(), row_parts->as<std::int32_t>(),
                                                       static_cast<std::int32_t>(pass.chunks.size()), 0, rows}});
  const double time = measure(std::max(8, layers), [&](int i, Stream stream) {
    segment_attention({queries.as<Bf16>(), out.as<Bf16>(), kv.as<unsigned char>(i % layers * layer),
                       header->as<AttentionPlan>(), values.as<float>(), sums.as<float>(), rows, shape},
                      cutting.blocks, stream);
  });
  print(std::to_string(8 * cache_element_bytes(shape.cache)) + " bits, " + std::to_string(shape.num_heads) + "/" +
            std::to_string(shape.num_kv_heads) + " x " + std::to_string(shape.head_dim) + ", " + std::to_string(rows) +
            " rows, " + std::to_string(shared) + " shared + " + std::to_string(own) + " own, " +
            std::to_string(pass.chunks.size()) + " chunks",
        time, static_cast<double>(layer));
}

void bench_attention() {
  for (const AttentionShape& shape :
       {AttentionShape{14, 2, 64}, AttentionShape{28, 4, 128}, AttentionShape{40, 8, 128}}) {
    bench_attention_case(shape, 1, 0, 1000);
    bench_attention_case(shape, 1, 0, 8000);
    bench_attention_case(shape, 16, 0, 512);
    bench_attention_case(shape, 64, 0, 512);
    bench_attention_case(shape, 8, 8000, 20);
    bench_attention_case(shape, 64, 8000, 20);
  }
  for (const CacheType cache : {CacheType::kBf16, CacheType::kFp16, CacheType::kFp8}) {
    bench_attention_case({40, 8, 128, cache}, 32, 16000, 0);
    bench_attention_case({40, 8, 128, cache}, 32, 0, 16000);
    bench_attention_case({40, 8, 128, cache}, 64, 0, 512);
  }
}

void bench_small() {
  const Memory hidden(64 * 8192 * 4), weight(8192 * 4), out(64 * 8192 * 2), logits(64 * 152064 * 4),
      work(64 * 152064 * 4), outcomes(4096), slices(64 * kSampleSlices * sizeof(SampleSlice)),
      filters(64 * sizeof(SampleFilter));
  hidden.randomize(64 * 8192 * 2);  // as float32: numbers of about 0.02
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  std::vector<float> numbers(64 * 152064);
  for (float& x : numbers) x = normal(random);
  check(cudaMemcpy(logits.as<float>(), numbers.data(), numbers.size() * 4, cudaMemcpyHostToDevice));
  for (const std::int32_t rows : {1, 64}) {
    print("norm of 5120, " + std::to_string(rows) + " rows",
          measure(64,
                  [&](int, Stream stream) {
                    norm({hidden.as<float>(), nullptr, weight.as<float>(), nullptr, out.as<Bf16>(), rows, 5120, 1e-6F},
                         stream);
                  }),
          rows * 5120.0 * 6.0);
    std::vector<SampleTask> tasks(static_cast<std::size_t>(rows));
    for (std::int32_t i = 0; i < rows; ++i) tasks[static_cast<std::size_t>(i)].logits_row = i;
    for (const int kind : {0, 1, 2, 3}) {
      for (SampleTask& task : tasks) {
        task.temperature = kind == 0 ? 0.0F : 0.6F;
        task.top_p = kind >= 2 ? 0.95F : 1.0F;
        task.top_k = kind == 3 ? 20 : 0;
      }
      const auto on_device = send(tasks);
      SamplingArgs args;
      args.logits = logits.as<float>();
      args.work = work.as<float>();
      args.slices = slices.as<SampleSlice>();
      args.filters = filters.as<SampleFilter>();
      args.needs = sample_needs(tasks.data(), rows);
      args.tasks = on_device->as<SampleTask>();
      args.outcomes = outcomes.as<SampleOutcome>();
      args.num_tasks = rows;
      args.vocab_size = 152064;
      print(std::string(kind == 0   ? "greedy"
                        : kind == 1 ? "temperature"
                        : kind == 2 ? "top-p"
                                    : "top-k and top-p") +
                " of 152064, " + std::to_string(rows) + " rows",
            measure(16, [&](int, Stream stream) { sample(args, stream); }), rows * 152064.0 * 4.0);
    }
  }
}

}  // namespace
}  // namespace multiverse

int main(int argc, char** argv) {
  const auto wanted = [&](const char* name) {
    return argc < 2 || std::any_of(argv + 1, argv + argc, [&](const char* arg) { return std::string(arg) == name; });
  };
  try {
    if (wanted("small")) multiverse::bench_small();
    if (wanted("attention")) multiverse::bench_attention();
    if (wanted("linear")) multiverse::bench_linear();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuda_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
