#include "multiverse/cache/page_hash.h"

#include <array>

#include "multiverse/base/entropy.h"

namespace multiverse {
namespace {

// Random for each process, so that nobody can prepare two texts that collide.
std::array<std::uint64_t, 2> process_secret() {
  static const std::array<std::uint64_t, 2> secret = {random_bits(), random_bits()};
  return secret;
}

// Two lanes of multiply-xorshift mixing (the finaliser of SplitMix64), each word entering both.
class Mixer {
 public:
  explicit Mixer(const PageKey& start) : high_(start.high), low_(start.low) {}
  void add(std::uint64_t word) {
    const auto secret = process_secret();
    high_ = mix(high_ ^ (word + secret[0]));
    low_ = mix(low_ + (word ^ secret[1]) * 0x9E3779B97F4A7C15ULL);
  }
  PageKey key() const { return {high_, low_}; }

 private:
  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
  }
  std::uint64_t high_, low_;
};

enum Kind : std::uint64_t { kRoot = 1, kTokens = 2, kFork = 3, kJoin = 4 };

}  // namespace

PageKey root_key(std::string_view cache_salt, std::uint64_t weights_version) {
  Mixer mixer({});
  mixer.add(kRoot);
  mixer.add(weights_version);
  mixer.add(cache_salt.size());
  for (const char c : cache_salt) mixer.add(static_cast<unsigned char>(c));
  return mixer.key();
}

PageKey extend_key(const PageKey& parent, std::span<const std::int32_t> tokens, std::int32_t first_position) {
  Mixer mixer(parent);
  mixer.add(kTokens | (static_cast<std::uint64_t>(tokens.size()) << 8));
  mixer.add(static_cast<std::uint64_t>(first_position));
  for (const std::int32_t token : tokens) mixer.add(static_cast<std::uint64_t>(token));
  return mixer.key();
}

PageKey fork_key(const PageKey& parent) {
  Mixer mixer(parent);
  mixer.add(kFork);
  return mixer.key();
}

PageKey join_key(const PageKey& parent, std::span<const PageKey> paths) {
  Mixer mixer(parent);
  mixer.add(kJoin | (static_cast<std::uint64_t>(paths.size()) << 8));
  for (const PageKey& path : paths) {
    mixer.add(path.high);
    mixer.add(path.low);
  }
  return mixer.key();
}

}  // namespace multiverse
