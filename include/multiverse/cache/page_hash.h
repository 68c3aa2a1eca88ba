// Content hashes of pages: what makes a prefix found again.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "multiverse/cache/page_pool.h"

namespace multiverse {

// The start of every chain of a request: the tenant's salt and the version of the weights.
PageKey root_key(std::string_view cache_salt, std::uint64_t weights_version);

// `parent` followed by these tokens, the first at `first_position`. A chain over full pages, one call a page, does not
// depend on how the pages are cut into segments.
PageKey extend_key(const PageKey& parent, std::span<const std::int32_t> tokens, std::int32_t first_position);

// A path's start: what its parent wrote so far.
PageKey fork_key(const PageKey& parent);
// The parent goes on after a fork (or part of one): its own key before, then each path's key in text order.
PageKey join_key(const PageKey& parent, std::span<const PageKey> paths);

}  // namespace multiverse
