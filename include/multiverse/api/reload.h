// POST /admin/reload_weights: its body, where its weights may come from, its answer.
#pragma once

#include <string>
#include <string_view>

#include "multiverse/base/status.h"
#include "multiverse/engine/engine.h"

namespace multiverse {

// Where weights may be loaded from. Empty `root`: nowhere, the route is off.
struct WeightPlaces {
  std::string model_dir;  // without a path: the folder that the server's own weights came from
  std::string root;       // paths are relative to this folder, and what they lead to lies below it
};

struct ReloadRequest {
  std::string model_dir;
  ReloadMode mode = ReloadMode::kRecompute;
};

// {"path"?, "mode"?: "recompute" or "keep"}; an empty body is {}. Looks at the file system: the path is followed to its
// end, links too, before it is held against the root. Fields that nobody knows are refused: a misspelt "mode" would
// change what running requests do.
Result<ReloadRequest> parse_reload_request(std::string_view body, const WeightPlaces& places);
std::string reload_body(const WeightsReload& reload, ReloadMode mode);

}  // namespace multiverse
