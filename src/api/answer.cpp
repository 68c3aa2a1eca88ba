#include "api/answer.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "multiverse/base/entropy.h"

#include "api/token_text.h"

namespace multiverse {
namespace {

OrderedJson bytes_of(std::string_view bytes) {
  OrderedJson list = OrderedJson::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return list;
}

const char* news_name(BranchNews::Kind kind) {
  switch (kind) {
    case BranchNews::Kind::kFork:
      return "fork";
    case BranchNews::Kind::kToken:
      return "token";
    case BranchNews::Kind::kEnd:
      return "end";
    case BranchNews::Kind::kJoin:
      return "join";
  }
  return "";
}

OrderedJson token_ids(const std::vector<CanonicalToken>& tokens) {
  OrderedJson ids = OrderedJson::array();
  for (const CanonicalToken& token : tokens) ids.push_back(token.token);
  return ids;
}

OrderedJson reason(const ChoicePart& part) {
  return part.finish_reason == nullptr ? OrderedJson(nullptr) : OrderedJson(part.finish_reason);
}

// Clients read the one or the other.
void add_reasoning(OrderedJson& message, const std::string& reasoning) {
  message["reasoning_content"] = reasoning;
  message["reasoning"] = reasoning;
}

OrderedJson tool_call(const ToolCallPart& call) {
  return {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

}  // namespace

void Usage::add(const SampleEndEvent& sample) {
  completion_tokens += sample.completion_tokens;
  std::vector<std::uint64_t> versions;
  std::set_union(weights_versions.begin(), weights_versions.end(), sample.weights_versions.begin(),
                 sample.weights_versions.end(), std::back_inserter(versions));
  weights_versions = std::move(versions);
  const ParallelUsage& from = sample.parallel;
  parallel.blocks += from.blocks;
  parallel.paths += from.paths;
  parallel.malformed += from.malformed;
  parallel.max_width = std::max(parallel.max_width, from.max_width);
  parallel.max_depth = std::max(parallel.max_depth, from.max_depth);
  parallel.critical_path_tokens = std::max(parallel.critical_path_tokens, from.critical_path_tokens);
  parallel.steps = std::max(parallel.steps, from.steps);
}

AnswerWriter::AnswerWriter(const Job& job, const ServedModel& model, std::int64_t created)
    : job_(job), model_(model), created_(created), id_((job.chat ? "chatcmpl-" : "cmpl-") + random_id()) {}

OrderedJson AnswerWriter::usage(const Usage& usage) const {
  const ParallelUsage& parallel = usage.parallel;
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details",
           {{"parallel",
             {{"blocks", parallel.blocks},
              {"paths", parallel.paths},
              {"max_width", parallel.max_width},
              {"max_depth", parallel.max_depth},
              {"critical_path_tokens", parallel.critical_path_tokens},
              {"steps", parallel.steps},
              {"malformed", parallel.malformed}}}}}};
}

ChoicePart AnswerWriter::echoed_prompt(const std::vector<TokenId>& prompt, const PromptEvent& event) const {
  ChoicePart part;
  const std::vector<std::string> pieces = tokens_texts(model_, prompt);
  std::size_t offset = 0;
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    CanonicalToken token;
    token.token = prompt[i];
    token.text_offset = offset;
    token.forced = i >= event.logprobs.size() || !event.logprobs[i];  // no log-probability
    if (!token.forced) {
      token.logprob = event.logprobs[i]->logprob;
      token.top = event.logprobs[i]->top;
    }
    part.tokens.push_back(std::move(token));
    part.text += pieces[i];
    offset += count_code_points(pieces[i]);
  }
  return part;
}

OrderedJson AnswerWriter::prompt_logprobs(const std::vector<TokenId>& prompt, const PromptEvent& event) const {
  OrderedJson list = OrderedJson::array();
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    if (i >= event.logprobs.size() || !event.logprobs[i]) {
      list.push_back(nullptr);
      continue;
    }
    const PromptEvent::Entry& entry = *event.logprobs[i];
    const auto described = [&](TokenId token, float logprob) {
      return OrderedJson{{"logprob", logprob}, {"decoded_token", token_text(model_, token)}};
    };
    OrderedJson row = OrderedJson::object();
    row[std::to_string(prompt[i])] = described(prompt[i], entry.logprob);
    const auto wanted = std::min(entry.top.size(), static_cast<std::size_t>(job_.top_prompt_logprobs));
    for (std::size_t rank = 0; rank < entry.top.size(); ++rank) {
      const TokenLogprob& top = entry.top[rank];
      if (rank >= wanted && top.token != prompt[i]) continue;
      OrderedJson& cell = row[std::to_string(top.token)];
      if (top.token != prompt[i]) cell = described(top.token, top.logprob);
      cell["rank"] = rank + 1;
    }
    list.push_back(std::move(row));
  }
  return list;
}

OrderedJson AnswerWriter::chat_token(const CanonicalToken& token) const {
  const auto described = [&](TokenId id, OrderedJson logprob) {
    return OrderedJson{{"token", token_text(model_, id)},
                       {"logprob", std::move(logprob)},
                       {"bytes", bytes_of(model_.tokenizer->token_bytes(id))}};
  };
  OrderedJson entry = described(token.token, token.forced ? OrderedJson(nullptr) : OrderedJson(token.logprob));
  OrderedJson top = OrderedJson::array();
  const auto wanted = std::min(token.top.size(), static_cast<std::size_t>(job_.top_logprobs));
  for (std::size_t i = 0; i < wanted; ++i) top.push_back(described(token.top[i].token, token.top[i].logprob));
  entry["top_logprobs"] = std::move(top);
  return entry;
}

OrderedJson AnswerWriter::logprobs(const std::vector<CanonicalToken>& tokens) const {
  if (!job_.logprobs) return nullptr;
  if (job_.chat) {
    OrderedJson content = OrderedJson::array();
    for (const CanonicalToken& token : tokens) content.push_back(chat_token(token));
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }
  OrderedJson names = OrderedJson::array(), own = OrderedJson::array(), top = OrderedJson::array(),
              offsets = OrderedJson::array();
  for (const CanonicalToken& token : tokens) {
    names.push_back(token_text(model_, token.token));
    own.push_back(token.forced ? OrderedJson(nullptr) : OrderedJson(token.logprob));
    offsets.push_back(token.text_offset);
    if (token.forced || job_.top_logprobs == 0) {
      top.push_back(nullptr);
      continue;
    }
    OrderedJson row = OrderedJson::object();
    const auto wanted = std::min(token.top.size(), static_cast<std::size_t>(job_.top_logprobs));
    // Several ids may have one text; the likeliest stands for it.
    for (std::size_t i = 0; i < wanted; ++i) {
      row.emplace(token_text(model_, token.top[i].token), token.top[i].logprob);
    }
    row.emplace(names.back().get<std::string>(), token.logprob);
    top.push_back(std::move(row));
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(own)},
          {"top_logprobs", job_.top_logprobs == 0 ? OrderedJson(nullptr) : std::move(top)},
          {"text_offset", std::move(offsets)}};
}

void AnswerWriter::add_extras(OrderedJson& choice, const ChoicePart& part) const {
  choice["logprobs"] = logprobs(part.tokens);
  choice["finish_reason"] = reason(part);
  if (job_.return_token_ids) choice["token_ids"] = token_ids(part.tokens);
}

OrderedJson AnswerWriter::message(const ChoicePart& part) const {
  const bool only_calls = part.text.empty() && !part.tool_calls.empty();
  OrderedJson message = {{"role", "assistant"},
                         {"content", only_calls ? OrderedJson(nullptr) : OrderedJson(part.text)},
                         {"refusal", nullptr}};
  if (job_.split_reasoning) add_reasoning(message, part.reasoning);
  for (const ToolCallPart& call : part.tool_calls) message["tool_calls"].push_back(tool_call(call));
  return message;
}

// A call's first part has its id and name.
OrderedJson AnswerWriter::delta(const ChoicePart& part) const {
  OrderedJson delta = OrderedJson::object();
  if (!part.reasoning.empty()) add_reasoning(delta, part.reasoning);
  if (!part.text.empty() || (!part.tokens.empty() && !part.says_text())) delta["content"] = part.text;
  for (const ToolCallPart& call : part.tool_calls) {
    OrderedJson said = {{"index", call.index}};
    said.update(call.id.empty() ? OrderedJson{{"function", {{"arguments", call.arguments}}}} : tool_call(call));
    delta["tool_calls"].push_back(std::move(said));
  }
  return delta;
}

OrderedJson AnswerWriter::full_choice(int index, const ChoicePart& part) const {
  OrderedJson choice = {{"index", index}};
  if (job_.chat) {
    choice["message"] = message(part);
  } else {
    choice["text"] = part.text;
  }
  add_extras(choice, part);
  return choice;
}

OrderedJson AnswerWriter::head(const char* object) const {
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_.names.front()}};
}

OrderedJson AnswerWriter::full_answer(OrderedJson choices, const Usage& used) const {
  OrderedJson answer = head(job_.chat ? "chat.completion" : "text_completion");
  answer["choices"] = std::move(choices);
  answer["usage"] = usage(used);
  answer["weights_versions"] = used.weights_versions;
  return answer;
}

OrderedJson AnswerWriter::chunk(OrderedJson choices) const {
  OrderedJson chunk = head(job_.chat ? "chat.completion.chunk" : "text_completion");
  chunk["choices"] = std::move(choices);
  if (job_.include_usage) chunk["usage"] = nullptr;
  return chunk;
}

OrderedJson AnswerWriter::role_choice(int index) const {
  return {{"index", index},
          {"delta", {{"role", "assistant"}, {"content", ""}}},
          {"logprobs", nullptr},
          {"finish_reason", nullptr}};
}

OrderedJson AnswerWriter::chunk_choice(int index, const ChoicePart& part) const {
  OrderedJson choice = {{"index", index}};
  const bool says_something = part.says_text() || !part.tokens.empty();
  if (job_.chat) {
    choice["delta"] = delta(part);
  } else {
    choice["text"] = part.text;
  }
  add_extras(choice, part);
  if (!says_something) choice["logprobs"] = nullptr;
  return choice;
}

OrderedJson AnswerWriter::branch_chunk(int index, const BranchNews& news) const {
  OrderedJson event = chunk(OrderedJson::array());
  event["branch"] = {{"id", news.id},
                     {"parent", news.root ? OrderedJson(nullptr) : OrderedJson(news.parent)},
                     {"label", news.label},
                     {"index", index},
                     {"event", news_name(news.kind)},
                     {"text", news.text},
                     {"tokens", news.tokens},
                     {"step", news.step}};
  return event;
}

}  // namespace multiverse
