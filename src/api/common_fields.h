// Fields that chat and text completions share.
#pragma once

#include "multiverse/api/job.h"

#include "api/field_reader.h"

namespace multiverse {

// Checks that the body is an object whose `model`, if there, is served.
Result<Json> parse_body(std::string_view body, const ServedModel& model);

// Reads sampling, limits, stop conditions, streaming and the `multiverse` extension into `job` and `request`, which
// every prompt of the job then copies. `default_max_tokens`: where the request is silent.
void read_common_fields(FieldReader& fields, const ServedModel& model, std::int32_t default_max_tokens, Job& job,
                        GenerateRequest& request);

// Refuses what is known but not built, and takes note of what is accepted and ignored.
void refuse_unsupported(FieldReader& fields);

}  // namespace multiverse
