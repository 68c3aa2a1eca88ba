// The bodies of requests: read, or refused as the client's mistake; what is read is within the limits.
#include <cstdint>
#include <string_view>

#include "multiverse/api/error_body.h"
#include "multiverse/api/job.h"
#include "multiverse/base/check.h"

#include "tests/support/fake_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace multiverse;
  static const auto kModel = testing::fake_model();
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto job = data[0] % 2 == 0 ? parse_chat_request(body, *kModel) : parse_completion_request(body, *kModel);
  if (!job.ok()) {
    const int status = http_status(job.error().code);
    CHECK(status == 400 || status == 404, "a body was answered with ", status, ": ", job.error().message);
    CHECK(!job.error().message.empty(), "a refusal says nothing");
    return 0;
  }
  CHECK(!job.value().requests.empty() && job.value().requests.size() <= 8, job.value().requests.size(), " prompts");
  for (const GenerateRequest& request : job.value().requests) {
    CHECK(request.n >= 1 && request.n <= 8, "n is ", request.n);
    CHECK(request.max_tokens >= 0 && request.min_tokens >= 0, "negative counts of tokens");
    for (const TokenId token : request.prompt) {
      CHECK(token >= 0 && token < kModel->tokenizer->size(), "token ", token, " is none");
    }
  }
  return 0;
}
