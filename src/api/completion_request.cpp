#include <utility>

#include "multiverse/api/job.h"

#include "api/common_fields.h"
#include "api/output_fields.h"

namespace multiverse {
namespace {

// OpenAI's default for this endpoint; chat has none.
constexpr std::int32_t kDefaultMaxTokens = 16;

using Prompt = std::vector<TokenId>;

class PromptReader {
 public:
  PromptReader(FieldReader& fields, const ServedModel& model)
      : fields_(fields),
        model_(model),
        trust_(fields.boolean("parse_special").value_or(true) ? Trust::kAll : Trust::kNone) {}

  std::vector<Prompt> read() {
    const Json* prompt = fields_.find("prompt");
    if (prompt == nullptr) {
      fields_.fail(invalid_argument("'prompt' is missing", "prompt"));
      return {};
    }
    const bool batch = prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
    if (!batch) {
      take(*prompt);
    } else if (prompt->size() > kMaxPrompts) {
      fields_.fail_value("prompt", *prompt, concat("at most ", kMaxPrompts, " prompts are allowed"));
    } else {
      for (const Json& one : *prompt) take(one);
    }
    return std::move(prompts_);
  }

 private:
  void take(const Json& value) {
    Prompt tokens;
    if (value.is_string()) {
      tokens = model_.tokenizer->encode(value.get_ref<const std::string&>(), trust_);
    } else if (value.is_array()) {
      tokens.reserve(value.size());
      for (const Json& id : value) {
        const auto token = exact_integer(id);
        if (!token || *token < 0 || *token >= model_.vocab_size) {
          return fields_.fail_value("prompt", id, concat("token ids from 0 to ", model_.vocab_size - 1, " are wanted"));
        }
        tokens.push_back(static_cast<TokenId>(*token));
      }
    } else {
      return fields_.fail_value("prompt", value, "a string, token ids, or a batch of either is wanted");
    }
    if (tokens.empty())
      return fields_.fail(invalid_argument("'prompt' is empty; at least one token is wanted", "prompt"));
    prompts_.push_back(std::move(tokens));
  }

  FieldReader& fields_;
  const ServedModel& model_;
  Trust trust_;
  std::vector<Prompt> prompts_;
};

}  // namespace

Result<Job> parse_completion_request(std::string_view body, const ServedModel& model) {
  const auto parsed = parse_body(body, model);
  if (!parsed.ok()) return parsed.error();
  FieldReader fields(parsed.value());
  Job job;
  GenerateRequest request;
  job.echo = fields.boolean("echo").value_or(false);
  read_common_fields(fields, model, kDefaultMaxTokens, job, request);
  if (const auto top = fields.integer32("logprobs", {0, kMaxTopLogprobs})) {
    job.logprobs = true;
    job.top_logprobs = *top;
    request.top_logprobs = *top;
    // The prompt's tokens are part of an echoing answer, so are their log-probabilities.
    if (job.echo) request.prompt_top_logprobs = std::max(request.prompt_top_logprobs, *top);
  }
  const auto syntax = read_syntax(fields, body, job);
  fields.refuse_unless("reasoning_format", {"none"});
  fields.refuse_unless("tools", {Json::array()});
  fields.refuse_unless("tool_choice", {"none"});
  fields.refuse_unless("parallel_tool_calls", {});
  refuse_unsupported(fields);
  std::vector<Prompt> prompts = PromptReader(fields, model).read();
  if (!fields.ok()) return fields.error();
  fields.collect_unknown(job.ignored_params);

  for (Prompt& prompt : prompts) {
    job.requests.push_back(request);
    job.requests.back().prompt = std::move(prompt);
  }
  if (syntax) {
    const Status applied = apply_syntax(*syntax, model, job);
    if (!applied.ok()) return applied.error();
  }
  return job;
}

}  // namespace multiverse
