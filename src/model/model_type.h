// The short name of an architecture, as ExecutorInfo tells it.
#pragma once

#include <string>

namespace multiverse {

inline std::string model_type(const std::string& architecture) {
  if (architecture == "Qwen2ForCausalLM") return "qwen2";
  if (architecture == "Qwen3ForCausalLM") return "qwen3";
  return "llama";
}

}  // namespace multiverse
