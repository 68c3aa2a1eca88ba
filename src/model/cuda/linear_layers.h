// How each kind of linear layer is computed on the GPU, by the number of rows: two kernels of ours and the library's.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "multiverse/kernels/cuda/linear.h"

#include "model/cuda/device.h"

namespace multiverse {

enum class LayerKind { kHeads, kOutput, kGateUp, kDown, kVocabulary };
inline constexpr std::array<LayerKind, 5> kLayerKinds = {LayerKind::kHeads, LayerKind::kOutput, LayerKind::kGateUp,
                                                         LayerKind::kDown, LayerKind::kVocabulary};
enum class LayerMethod { kShares, kTiles, kLibrary };

class LinearLayers {
 public:
  // deterministic: always by shares, whose sums do not depend on the number of rows. Throws ExecutionError.
  LinearLayers(Device& device, std::int32_t most_outputs, bool deterministic);

  LayerMethod method(LayerKind kind, std::int32_t rows) const;
  // By one of our kernels: method() says which. `args` without method and scratch.
  void compute(LayerKind kind, kernels::cuda::LinearArgs args) const;

  // Times work(rows), which computes such layers as method() says, with each method at several numbers of rows up to
  // max_rows, and keeps the fastest. Measured at each start: it takes a fraction of a second, and a file of choices
  // would have to name card, driver and versions.
  void tune(LayerKind kind, std::int32_t max_rows, const std::function<void(std::int32_t)>& work);
  // The choices, for the log.
  std::string summary() const;

 private:
  using Choices = std::map<std::int32_t, LayerMethod>;  // up to so many rows

  double time(const std::function<void()>& work);

  Device& device_;
  const bool deterministic_;
  std::array<Choices, kLayerKinds.size()> choices_;
  Device::Memory partials_, arrivals_;
  kernels::cuda::LinearScratch scratch_;
};

}  // namespace multiverse
