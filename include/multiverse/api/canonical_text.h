// A sample's reply in canonical order: what a branch wrote, then its paths in outline order, then what it wrote on.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "multiverse/api/stop_matcher.h"
#include "multiverse/scheduler/request.h"
#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse {

struct CanonicalToken {
  TokenId token = 0;
  bool forced = false;
  float logprob = 0.0F;
  std::vector<TokenLogprob> top;
  std::size_t text_offset = 0;  // code points of the reply before this token's text
  std::int32_t branch = 0;      // that wrote it; 0 is the root
};

// Live news of one branch, in the order in which things happened.
struct BranchNews {
  enum class Kind { kFork, kToken, kEnd, kJoin };
  Kind kind = Kind::kToken;
  std::string id;      // address; "" is the root
  std::string parent;  // address of the parent; "" for the root and its children
  bool root = false;
  std::string label;
  std::string text;         // kToken only
  std::int64_t tokens = 0;  // that the branch has so far, forced ones included
  std::int64_t step = 0;    // drawn tokens so far on the longest chain that leads here: passes of an engine at its best
};

// Takes the events of one sample and gives text and tokens in canonical order, cut before the first stop string (or
// after it). The first unfinished path comes as it is written, later ones are held until it is their turn. The pieces
// joined are the same bytes however the events of different branches were interleaved. Holds at most what the engine
// generates. One thread.
class CanonicalText {
 public:
  // The bytes that a token adds to the text, "" for a hidden one. Must outlive the object.
  using VisibleBytes = std::function<std::string_view(TokenId)>;

  // `include_stop`: the text goes on to the end of the stop string, or of the stop token's own text.
  CanonicalText(VisibleBytes visible_bytes, std::vector<std::string> stops, bool include_stop = false);
  ~CanonicalText();
  CanonicalText(CanonicalText&&) noexcept;
  CanonicalText& operator=(CanonicalText&&) = delete;

  void add(const TokenEvent& event);
  void add(const ForkEvent& event);
  void add(const BranchEndEvent& event);
  void add(const JoinEvent& event);
  void finish();  // SampleEndEvent: open branches count as ended

  struct Delta {
    std::string text;  // valid UTF-8 by itself
    std::vector<CanonicalToken> tokens;
    bool empty() const { return text.empty() && tokens.empty(); }
  };
  // What became certain since the last call.
  Delta take();

  // A stop string was found: nothing comes after.
  bool stopped() const { return done_ && canonical_.matched(); }
  // A branch whose text holds a stop string, to be told to the engine once: RequestStream::cut.
  std::optional<std::int32_t> take_cut();
  // What happened since the last call; text of a branch in one piece between two other events. Only where wanted.
  void want_news() { want_news_ = true; }
  std::vector<BranchNews> take_news();

 private:
  struct Branch;
  struct Piece {  // a token and the text that became certain with it; or text alone, at the end of a run
    std::optional<CanonicalToken> token;
    std::string text;
  };
  using Held = std::variant<Piece, std::vector<std::int32_t>>;  // the second: a fork's children
  struct Turn {                                                 // whose text comes next, on one level
    std::vector<std::int32_t> branches;
    std::size_t next = 0;
  };

  Branch& branch(std::int32_t handle);
  void end_run(Branch& branch);
  void watch(Branch& branch, std::string_view text, bool at_end);
  void report(const Branch& branch, BranchNews::Kind kind, std::string text = "");
  void advance();
  bool step();
  void release(const std::string& text);
  void append(Piece piece);
  void end_text();

  VisibleBytes visible_bytes_;
  std::vector<std::string> stops_;
  bool include_stop_;
  bool search_branches_;  // a match within one branch's text is a match of the whole
  bool want_news_ = false;
  bool finished_ = false;  // no more events
  bool done_ = false;      // no more text
  std::unordered_map<std::int32_t, std::unique_ptr<Branch>> branches_;
  std::vector<Turn> turns_;  // from the root down
  StopMatcher canonical_;
  std::size_t appended_bytes_ = 0, released_bytes_ = 0;  // of the canonical text
  std::size_t code_points_ = 0;                          // of what was appended
  struct Waiting {
    std::size_t offset_bytes;  // where its text starts
    CanonicalToken token;
  };
  std::deque<Waiting> waiting_;  // tokens whose text is not certain yet
  Delta delta_;
  std::vector<std::int32_t> cuts_;
  std::vector<BranchNews> news_;
};

}  // namespace multiverse
