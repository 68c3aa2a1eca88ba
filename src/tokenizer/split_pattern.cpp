#include "tokenizer/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <new>
#include <string>

#include "tokenizer/failure.h"
#include "tokenizer/pattern_syntax.h"

namespace multiverse::tokenizer {
namespace {

// PCRE2 counts the steps of one match from each place where it may begin, so the places per call are limited too. A
// place gets kFirstSteps; if they don't do (long runs of white space need about as many steps as the run is long),
// it is tried again with kGrowth times as many, which are taken from the text's budget.
constexpr std::uint32_t kFirstSteps = 1000;
constexpr std::uint32_t kGrowth = 8;
constexpr std::size_t kPlacesPerCall = 256;
constexpr std::uint64_t kBudgetPerByte = 64;
constexpr std::uint64_t kLeastBudget = 1'000'000;
constexpr std::size_t kStackStart = std::size_t{32} << 10;
constexpr std::size_t kStackLimit = std::size_t{4} << 20;

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Freed<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Freed<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Freed<pcre2_jit_stack_free>>;

std::string message_of(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR code_units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

// One pass over one text.
class Search {
 public:
  Search(const pcre2_code* code, bool has_jit, std::string_view text)
      : code_(code),
        match_(has_jit ? &pcre2_jit_match : &pcre2_match),
        text_(text),
        budget_(kLeastBudget + kBudgetPerByte * text.size()),
        context_(pcre2_match_context_create(nullptr)),
        data_(pcre2_match_data_create(1, nullptr)) {
    if (context_ == nullptr || data_ == nullptr) throw std::bad_alloc();
  }

  // The next match, or false where there is none (or the budget is spent).
  bool next(TextRange& match) {
    while (at_ < text_.size()) {
      const int result = call(places_, steps_);
      if (result > 0) {
        const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
        match = {offsets[0], offsets[1]};
        at_ = match.end;
        reset_effort();
        return match.end > match.begin;  // a pattern that matches nothing is refused at load
      }
      if (result == PCRE2_ERROR_NOMATCH) {
        skip_searched_places();
      } else if (!try_harder(result)) {
        return false;
      }
    }
    return false;
  }

 private:
  int call(std::size_t places, std::uint32_t steps) {
    pcre2_set_match_limit(context_.get(), steps);
    pcre2_set_offset_limit(context_.get(), at_ + places - 1);
    // NO_UTF_CHECK: the text was checked once, as a whole.
    return match_(code_, code_units(text_), text_.size(), at_, PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
  }

  void reset_effort() {
    places_ = kPlacesPerCall;
    steps_ = kFirstSteps;
  }

  void skip_searched_places() {
    at_ = std::min(at_ + places_, text_.size());
    while (at_ < text_.size() && (static_cast<unsigned char>(text_[at_]) & 0xC0) == 0x80) ++at_;
    reset_effort();
  }

  bool try_harder(int error) {
    if (error == PCRE2_ERROR_JIT_STACKLIMIT && stack_ == nullptr) {
      stack_.reset(pcre2_jit_stack_create(kStackStart, kStackLimit, nullptr));
      if (stack_ == nullptr) throw std::bad_alloc();
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      return true;
    }
    if (error != PCRE2_ERROR_MATCHLIMIT) return false;
    if (places_ > 1) {  // which of the places it was isn't known
      places_ = 1;
      return true;
    }
    const std::uint64_t wanted = std::uint64_t{steps_} * kGrowth;
    if (wanted > budget_ || wanted > UINT32_MAX) return false;
    budget_ -= wanted;
    steps_ = static_cast<std::uint32_t>(wanted);
    return true;
  }

  const pcre2_code* code_;
  decltype(&pcre2_match) match_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t places_ = kPlacesPerCall;
  std::uint32_t steps_ = kFirstSteps;
  std::uint64_t budget_;  // steps that may yet be spent beyond the first tries
  MatchContext context_;
  MatchData data_;
  JitStack stack_;
};

class Pcre2Pattern final : public SplitPattern {
 public:
  Pcre2Pattern(Code code, bool has_jit) : code_(std::move(code)), has_jit_(has_jit) {}

  void find_all(std::string_view text, std::vector<TextRange>& matches) const override {
    Search search(code_.get(), has_jit_, text);
    TextRange match;
    while (search.next(match)) matches.push_back(match);
  }

 private:
  Code code_;
  bool has_jit_;
};

}  // namespace

Result<std::shared_ptr<const SplitPattern>> SplitPattern::compile(std::string_view pattern) {
  Result<std::string> translated = to_pcre2_syntax(pattern);
  if (!translated.ok()) return translated.error();
  const std::string& source = translated.value();

  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // what . does not match in Ruby
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  Code code(pcre2_compile(code_units(source), source.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_USE_OFFSET_LIMIT, &error,
                          &error_offset, context.get()));
  const auto refuse = [&pattern](const std::string& why) {
    return unsupported(concat("the pattern ", pattern, " ", why));
  };
  if (code == nullptr) return refuse(concat("does not compile: ", message_of(error), " (as ", source, ")"));
  std::uint32_t matches_nothing = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &matches_nothing);
  if (matches_nothing != 0) return refuse("can match the empty text, which is not supported");
  error = pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  // PCRE2 without JIT runs the same pattern slower; anything else is a pattern that JIT can't take.
  if (error != 0 && error != PCRE2_ERROR_JIT_BADOPTION) return refuse(concat("does not compile: ", message_of(error)));
  return std::shared_ptr<const SplitPattern>(std::make_shared<Pcre2Pattern>(std::move(code), error == 0));
}

}  // namespace multiverse::tokenizer
