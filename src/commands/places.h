// Where the files that ship with the server are.
#pragma once

#include <optional>
#include <string>

#include "multiverse/base/status.h"
#include "multiverse/dialect/dialect.h"
#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse {

// The checkout that the running binary was built in (build/release/multiverse → its third folder up).
std::string checkout_dir();
std::string dialects_dir();
// models/multiverse-tiny of the checkout.
std::string shipped_model_dir();

// The dialect of the model's tokenizer. `choice`: "auto" looks through configs/dialects, "off" gives none, anything
// else is the name of a file there ("npr") or a dialect file, whose tokens must all be there. The tokenizer must
// outlive the dialect.
Result<std::optional<Dialect>> load_dialect(const std::string& choice, const Tokenizer& tokenizer);

}  // namespace multiverse
