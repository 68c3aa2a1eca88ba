// Puts the events of a sample into canonical order, the plain way: the whole tree first, then a walk.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "multiverse/scheduler/request.h"

namespace multiverse::testing {

struct CanonicalSample {
  std::vector<TokenEvent> tokens;  // without the end-of-text token
  std::vector<SampleEndEvent> ends;
  // Leading tokens before which every path had ended: where a sample is ended early (max_tokens), the text after the
  // first open path reads differently.
  std::size_t well_ordered = 0;
};

inline CanonicalSample canonical_sample(const std::vector<Event>& events, std::int32_t sample) {
  struct Piece {
    const TokenEvent* token = nullptr;
    const ForkEvent* fork = nullptr;
  };
  std::map<std::int32_t, std::vector<Piece>> pieces;
  std::set<std::int32_t> ended;
  CanonicalSample out;
  for (const Event& event : events) {
    if (const auto* token = std::get_if<TokenEvent>(&event); token != nullptr && token->sample == sample) {
      if (!token->end_of_text) pieces[token->branch].push_back({token, nullptr});
    }
    if (const auto* fork = std::get_if<ForkEvent>(&event); fork != nullptr && fork->sample == sample) {
      pieces[fork->parent].push_back({nullptr, fork});
    }
    if (const auto* end = std::get_if<BranchEndEvent>(&event); end != nullptr && end->sample == sample) {
      ended.insert(end->branch);
    }
    if (const auto* end = std::get_if<SampleEndEvent>(&event); end != nullptr && end->sample == sample) {
      out.ends.push_back(*end);
    }
  }
  bool all_ended = true;
  const auto walk = [&](const auto& self, std::int32_t branch) -> void {
    for (const Piece& piece : pieces[branch]) {
      if (piece.token != nullptr) out.tokens.push_back(*piece.token);
      if (all_ended) out.well_ordered = out.tokens.size();
      if (piece.fork == nullptr) continue;
      for (const ForkEvent::Child& child : piece.fork->children) {
        self(self, child.branch);
        all_ended = all_ended && ended.contains(child.branch);
      }
    }
  };
  walk(walk, 0);
  return out;
}

}  // namespace multiverse::testing
