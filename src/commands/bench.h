// The benchmarks of `multiverse bench`. They print figures beside their floors and never fail for being slow.
#pragma once

#include <span>
#include <string_view>

namespace multiverse {

int bench_decode(std::span<const std::string_view> args);
int bench_http(std::span<const std::string_view> args);
int bench_policies(std::span<const std::string_view> args);
int bench_request(std::span<const std::string_view> args);
int bench_scheduler(std::span<const std::string_view> args);

}  // namespace multiverse
