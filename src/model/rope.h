// Rotary position embedding: angles of a position.
#pragma once

#include <cstdint>
#include <vector>

#include "multiverse/config/model_config.h"

namespace multiverse {

class Rope {
 public:
  // Frequencies theta^(-2i/head_dim), with Llama 3's scaling where the config has it (long wavelengths divided by
  // `factor`, a blend between the two limits; as transformers computes it).
  explicit Rope(const ModelConfig& config);

  // cosine, sine: (head_dim / 2). The angle is a float32 product, as in training: at long positions its rounding is
  // part of what the model learned.
  void angles(std::int32_t position, float* cosine, float* sine) const;

  const std::vector<float>& frequencies() const { return frequencies_; }

 private:
  std::vector<float> frequencies_;
};

}  // namespace multiverse
