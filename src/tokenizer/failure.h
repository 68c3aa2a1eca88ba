#pragma once

#include <string>
#include <utility>

#include "multiverse/base/status.h"

namespace multiverse::tokenizer {

inline Error failure(ErrorCode code, std::string message) {
  return Error{code, std::move(message), ""};
}

// Known, but not built.
inline Error unsupported(std::string message) {
  return failure(ErrorCode::kUnsupported, std::move(message));
}

}  // namespace multiverse::tokenizer
