// The messages of a chat request, as the template takes them.
#pragma once

#include "multiverse/api/served_model.h"

#include "api/field_reader.h"

namespace multiverse {

// Reads `messages`, `chat_template_kwargs` and `add_generation_prompt`. Unknown fields of messages go to `ignored`.
ChatTemplateInput read_chat_input(FieldReader& fields, const ServedModel& model, std::vector<std::string>& ignored);

}  // namespace multiverse
