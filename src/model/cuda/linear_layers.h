// How each kind of linear layer is computed on the GPU, by the number of rows: two kernels of ours and the library's.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "multiverse/kernels/cuda/linear.h"

#include "model/cuda/device.h"
#include "model/cuda/tuning_file.h"

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
  // max_rows, and keeps the fastest.
  void tune(LayerKind kind, std::int32_t max_rows, const std::function<void(std::int32_t)>& work);
  // What tune() found: a letter for each number of rows (s: shares, t: tiles, l: library).
  LayerChoices choices() const;
  // Takes these instead of measuring. False, and nothing is taken, where they aren't such as tune() finds for max_rows.
  bool take(const LayerChoices& choices, std::int32_t max_rows);
  // What choices are fit for, beside the layers' sizes: card, driver, kernels.
  std::string tuning_key() const;
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
