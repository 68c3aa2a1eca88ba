// What a decode step can't beat: how fast this machine reads and multiplies, and how much a model needs of it.
#pragma once

#include "multiverse/config/model_config.h"

namespace multiverse {

// Bytes a second that all cores together read of a range of so many bytes, over and over: where it fits a cache, that
// is the cache's rate, as it is for weights that fit.
double measure_read_rate(double range_bytes);

// Floating-point operations a second of all cores together.
double measure_flop_rate();

// Multiplications and additions of one row's decoder layers with so many tokens before it; row_flops: and its logits'.
double layer_flops(const ModelConfig& model, double context);
double row_flops(const ModelConfig& model, double context);

}  // namespace multiverse
