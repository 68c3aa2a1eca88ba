#include "model/rope.h"

#include <cmath>

namespace multiverse {

Rope::Rope(const ModelConfig& config) {
  constexpr double kTwoPi = 6.283185307179586;
  for (std::int64_t i = 0; i < config.head_dim / 2; ++i) {
    // In float32, as the model was trained and as transformers has it: a last bit here is 10⁻⁴ rad at position 2,000.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    double frequency = 1.0F / std::pow(static_cast<float>(config.rope_theta), exponent);
    if (config.rope_scaling) {
      const RopeScaling& scaling = *config.rope_scaling;
      const double turns = static_cast<double>(scaling.original_max_position) * frequency / kTwoPi;
      if (turns < scaling.low_freq_factor) {
        frequency /= scaling.factor;
      } else if (turns <= scaling.high_freq_factor) {
        const double smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
        frequency = (1.0 - smooth) * frequency / scaling.factor + smooth * frequency;
      }
    }
    frequencies_.push_back(static_cast<float>(frequency));
  }
}

void Rope::angles(std::int32_t position, float* cosine, float* sine) const {
  for (std::size_t i = 0; i < frequencies_.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies_[i];
    cosine[i] = std::cos(angle);
    sine[i] = std::sin(angle);
  }
}

}  // namespace multiverse
