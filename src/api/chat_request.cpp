#include <utility>

#include "multiverse/api/job.h"

#include "api/chat_messages.h"
#include "api/common_fields.h"
#include "api/output_fields.h"
#include "api/prompt.h"

namespace multiverse {

Result<RenderedPrompt> render_prompt(const ServedModel& model, const ChatTemplateInput& input) {
  if (model.chat_template == nullptr) {
    return invalid_argument(concat("the model '", model.names.front(), "' has no chat template; use /v1/completions"),
                            "messages");
  }
  const auto rendered = model.chat_template->render(input);
  if (!rendered.ok()) return rendered.error();
  RenderedPrompt prompt;
  prompt.tokens = model.tokenizer->encode(rendered.value(), model.control_tokens());
  for (const TextSpan& span : rendered.value()) prompt.text += span.text;
  if (prompt.tokens.empty()) return invalid_argument("the messages render to an empty prompt", "messages");
  return prompt;
}

Result<Job> parse_chat_request(std::string_view body, const ServedModel& model) {
  const auto parsed = parse_body(body, model);
  if (!parsed.ok()) return parsed.error();
  FieldReader fields(parsed.value());
  Job job;
  job.chat = true;
  GenerateRequest request;
  ChatTemplateInput input = read_chat_input(fields, model, job.ignored_params);
  const ToolUse tools = read_tools(fields, body, model, job.ignored_params);
  input.tools_json = tools.shown;
  job.tools = tool_reading(tools, model.tool_format);
  read_common_fields(fields, model, /*default_max_tokens=*/0, job, request);

  job.logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer32("top_logprobs", {0, kMaxTopLogprobs});
  if (top && *top > 0 && !job.logprobs) {
    fields.fail(invalid_argument(concat("'top_logprobs' is ", *top, ", but 'logprobs' is not true"), "top_logprobs"));
  }
  job.top_logprobs = top.value_or(0);
  if (job.logprobs) request.top_logprobs = job.top_logprobs;
  job.split_reasoning = fields.choice<bool>("reasoning_format", {{"none", false}, {"split", true}}).value_or(false);
  std::optional<WantedSyntax> syntax = read_syntax(fields, body, job);
  if (syntax && tools.choice != ToolUse::Choice::kNone) {
    fields.fail(invalid_argument(
        concat("'", syntax->param, "' and 'tools' that may be called don't go together; set 'tool_choice' to 'none'"),
        "tools"));
  }
  const bool calls_in_text = tools.choice == ToolUse::Choice::kAuto && model.constraints != nullptr;
  if (tools.forced() || calls_in_text) syntax = tool_syntax(tools, model.tool_format);
  refuse_unsupported(fields);
  if (!fields.ok()) return fields.error();
  fields.collect_unknown(job.ignored_params);

  auto prompt = render_prompt(model, input);
  if (!prompt.ok()) return prompt.error();
  request.prompt = std::move(prompt).value().tokens;
  job.requests.push_back(std::move(request));
  if (syntax) {
    const Status applied = apply_syntax(*syntax, model, job);
    if (!applied.ok()) return applied.error();
  }
  return job;
}

}  // namespace multiverse
