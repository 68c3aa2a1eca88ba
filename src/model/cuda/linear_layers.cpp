#include "model/cuda/linear_layers.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

// Rows at which methods are compared: up to each, and beyond the one before it, a choice holds. Beyond the last, and
// for tiles beyond 16, a pass of the kernel over the weights is not enough, and the library is faster.
constexpr std::array<std::int32_t, 6> kTunedRows = {1, 4, 8, 16, 32, 64};
constexpr std::int32_t kMostByTiles = 16;
constexpr std::array<const char*, kLayerKinds.size()> kKindNames = {"heads", "output", "gates", "down", "vocabulary"};
constexpr std::string_view kLetters = "stl";  // of LayerMethod
// To be raised with any change that makes one of our kernels faster or slower.
constexpr int kKernelsVersion = 1;

std::size_t index_of(LayerKind kind) {
  return static_cast<std::size_t>(kind);
}

}  // namespace

LinearLayers::LinearLayers(Device& device, std::int32_t most_outputs, bool deterministic)
    : device_(device), deterministic_(deterministic) {
  scratch_.blocks = device_.multiprocessors();
  partials_ = device_.allocate(kernels::cuda::linear_partials(scratch_.blocks) * std::int64_t{sizeof(float)});
  const std::int64_t bytes = kernels::cuda::linear_arrivals(most_outputs) * std::int64_t{sizeof(std::int32_t)};
  arrivals_ = device_.allocate(bytes);
  const Device::Memory zeros = device_.allocate_pinned(bytes);
  std::memset(zeros.get(), 0, static_cast<std::size_t>(bytes));
  device_.upload(arrivals_.get(), zeros.get(), bytes);
  device_.synchronize();
  scratch_.partials = static_cast<float*>(partials_.get());
  scratch_.arrivals = static_cast<std::int32_t*>(arrivals_.get());
}

LayerMethod LinearLayers::method(LayerKind kind, std::int32_t rows) const {
  if (deterministic_) return LayerMethod::kShares;
  const Choices& choices = choices_[index_of(kind)];
  const auto found = choices.lower_bound(rows);
  return found == choices.end() ? LayerMethod::kLibrary : found->second;
}

void LinearLayers::compute(LayerKind kind, kernels::cuda::LinearArgs args) const {
  const LayerMethod chosen = method(kind, args.rows);
  CHECK(chosen != LayerMethod::kLibrary, "a layer of ", args.rows, " rows is the library's");
  args.method =
      chosen == LayerMethod::kTiles ? kernels::cuda::LinearMethod::kTiles : kernels::cuda::LinearMethod::kShares;
  args.scratch = scratch_;
  kernels::cuda::linear(args, device_.stream());
}

void LinearLayers::tune(LayerKind kind, std::int32_t max_rows, const std::function<void(std::int32_t)>& work) {
  if (deterministic_) return;
  Choices& choices = choices_[index_of(kind)];
  for (const std::int32_t count : kTunedRows) {
    if (count > max_rows) break;
    LayerMethod fastest = LayerMethod::kShares;
    double least = std::numeric_limits<double>::infinity();
    for (const LayerMethod method : {LayerMethod::kShares, LayerMethod::kTiles, LayerMethod::kLibrary}) {
      if (method == LayerMethod::kTiles && count > kMostByTiles) continue;
      choices[count] = method;
      const double seconds = time([&] { work(count); });
      if (seconds >= least) continue;
      least = seconds;
      fastest = method;
    }
    choices[count] = fastest;
  }
}

double LinearLayers::time(const std::function<void()>& work) {
  work();  // what a library sets up at its first call stays out of the graph
  device_.synchronize();
  const std::unique_ptr<Device::Graph> graph = device_.capture(work);
  double least = std::numeric_limits<double>::infinity();
  for (int repeat = 0; repeat < 4; ++repeat) {
    device_.begin_work();
    graph->replay();
    least = std::min(least, device_.end_work());
  }
  return least;
}

LayerChoices LinearLayers::choices() const {
  LayerChoices out;
  for (const LayerKind kind : kLayerKinds) {
    std::string& letters = out[kKindNames[index_of(kind)]];
    for (const auto& [rows, method] : choices_[index_of(kind)]) letters += kLetters[static_cast<std::size_t>(method)];
  }
  return out;
}

bool LinearLayers::take(const LayerChoices& choices, std::int32_t max_rows) {
  std::array<Choices, kLayerKinds.size()> taken;
  for (const LayerKind kind : kLayerKinds) {
    const auto found = choices.find(kKindNames[index_of(kind)]);
    if (found == choices.end()) return false;
    std::size_t used = 0;
    for (const std::int32_t count : kTunedRows) {
      if (count > max_rows) break;
      const std::size_t method = used < found->second.size() ? kLetters.find(found->second[used++]) : kLetters.npos;
      if (method == kLetters.npos) return false;
      taken[index_of(kind)][count] = static_cast<LayerMethod>(method);
      if (taken[index_of(kind)][count] == LayerMethod::kTiles && count > kMostByTiles) return false;
    }
    if (used != found->second.size()) return false;
  }
  choices_ = std::move(taken);
  return true;
}

std::string LinearLayers::tuning_key() const {
  return concat(device_.name(), ", ", device_.versions(), ", kernels ", kKernelsVersion);
}

std::string LinearLayers::summary() const {
  if (deterministic_) return "all by shares";
  std::string out = "by rows (s: shares, t: tiles, l: library)";
  const LayerChoices found = choices();
  for (const char* kind : kKindNames) out += concat(kind == kKindNames[0] ? ": " : ", ", kind, " ", found.at(kind));
  return out;
}

}  // namespace multiverse
