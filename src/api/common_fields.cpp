#include "api/common_fields.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "multiverse/base/entropy.h"

namespace multiverse {
namespace {

constexpr std::int32_t kMaxInt32 = std::numeric_limits<std::int32_t>::max();

// The key of a logit_bias entry: plain decimal digits, so that no two keys name one token.
std::optional<TokenId> token_key(const std::string& key, std::int32_t vocab_size) {
  TokenId id = -1;
  const auto [end, failure] = std::from_chars(key.data(), key.data() + key.size(), id);
  const bool plain = failure == std::errc() && end == key.data() + key.size() && std::to_string(id) == key;
  if (!plain || id < 0 || id >= vocab_size) return std::nullopt;
  return id;
}

void read_logit_bias(FieldReader& fields, const ServedModel& model, SamplingParams& sampling) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > kMaxLogitBias) {
    return fields.fail(invalid_argument(
        concat("'logit_bias' has ", bias->size(), " entries, at most ", kMaxLogitBias, " are allowed"), "logit_bias"));
  }
  for (const auto& [key, value] : bias->items()) {
    const auto token = token_key(key, model.vocab_size);
    if (!token) {
      return fields.fail(invalid_argument(
          concat("'logit_bias' maps token ids from 0 to ", model.vocab_size - 1, " to numbers; a key is no such id"),
          "logit_bias"));
    }
    if (!value.is_number() || value.get<double>() < -100.0 || value.get<double>() > 100.0) {
      return fields.fail_value("logit_bias", value, "a number from -100 to 100 is wanted for each token");
    }
    sampling.logit_bias.emplace_back(*token, value.get<float>());
  }
  std::sort(sampling.logit_bias.begin(), sampling.logit_bias.end());
}

void read_sampling(FieldReader& fields, const ServedModel& model, SamplingParams& sampling) {
  const GenerationConfig& defaults = model.generation;
  const double default_temperature = defaults.do_sample ? defaults.temperature.value_or(1.0) : 0.0;
  const auto default_top_k = std::clamp<std::int64_t>(defaults.top_k.value_or(0), 0, kMaxInt32);

  const auto as_float = [](double value) { return static_cast<float>(value); };
  sampling.temperature = as_float(fields.number("temperature", {0.0, 2.0}).value_or(default_temperature));
  sampling.top_p = as_float(fields.number("top_p", {0.0, 1.0, true}).value_or(defaults.top_p.value_or(1.0)));
  sampling.min_p = as_float(fields.number("min_p", {0.0, 1.0}).value_or(defaults.min_p.value_or(0.0)));
  sampling.top_k = std::max(0, fields.integer32("top_k", {-1, kMaxInt32}).value_or(static_cast<int>(default_top_k)));
  sampling.repetition_penalty = as_float(
      fields.number("repetition_penalty", {0.0, 10.0, true}).value_or(defaults.repetition_penalty.value_or(1.0)));
  sampling.presence_penalty = as_float(fields.number("presence_penalty", {-2.0, 2.0}).value_or(0.0));
  sampling.frequency_penalty = as_float(fields.number("frequency_penalty", {-2.0, 2.0}).value_or(0.0));
  read_logit_bias(fields, model, sampling);
}

void read_lengths(FieldReader& fields, std::int32_t default_max_tokens, Job& job, GenerateRequest& request) {
  const auto old_name = fields.integer32("max_tokens", {0, kMaxInt32});
  const auto new_name = fields.integer32("max_completion_tokens", {0, kMaxInt32});
  if (old_name && new_name && *old_name != *new_name) {
    fields.fail(invalid_argument(
        concat("'max_tokens' is ", *old_name, " and 'max_completion_tokens' is ", *new_name, "; give one of them"),
        "max_completion_tokens"));
  }
  const auto given = new_name ? new_name : old_name;
  request.max_tokens = given.value_or(default_max_tokens);
  job.discard_output = given && *given == 0;
  if (job.discard_output) {
    request.max_tokens = 1;
    if (!job.echo && !job.prompt_logprobs) {
      fields.fail(invalid_argument("'max_tokens' is 0, which only 'echo' or 'prompt_logprobs' give a meaning",
                                   new_name ? "max_completion_tokens" : "max_tokens"));
    }
  }
  request.min_tokens = fields.integer32("min_tokens", {0, kMaxInt32}).value_or(0);
  if (given && request.min_tokens > *given) {
    fields.fail(invalid_argument(
        concat("'min_tokens' is ", request.min_tokens, ", more than the ", *given, " allowed tokens"), "min_tokens"));
  }
}

void read_stop(FieldReader& fields, const ServedModel& model, Job& job, GenerateRequest& request) {
  const Json* stop = fields.find("stop");
  const auto take = [&](const Json& value) {
    const bool fits = value.is_string() && !value.get_ref<const std::string&>().empty() &&
                      value.get_ref<const std::string&>().size() <= kMaxStopBytes;
    if (fits) {
      job.stops.push_back(value.get<std::string>());
    } else {
      fields.fail_value("stop", value, concat("strings of 1 to ", kMaxStopBytes, " bytes are wanted"));
    }
  };
  if (stop != nullptr && stop->is_array()) {
    if (stop->size() > model.max_stop_strings) {
      fields.fail_value("stop", *stop, concat("at most ", model.max_stop_strings, " strings are allowed"));
    } else {
      for (const Json& value : *stop) take(value);
    }
  } else if (stop != nullptr) {
    take(*stop);
  }
  if (const Json* ids = fields.array("stop_token_ids", kMaxStopTokens)) {
    for (const Json& value : *ids) {
      const auto id = exact_integer(value);
      if (!id || *id < 0 || *id >= model.vocab_size) {
        return fields.fail_value("stop_token_ids", value,
                                 concat("token ids from 0 to ", model.vocab_size - 1, " are wanted"));
      }
      request.stop_tokens.push_back(static_cast<TokenId>(*id));
    }
  }
  job.include_stop = fields.boolean("include_stop_str_in_output").value_or(false);
  request.ignore_eos = fields.boolean("ignore_eos").value_or(false);
}

void read_stream(FieldReader& fields, Job& job) {
  job.stream = fields.boolean("stream").value_or(false);
  const Json* options = fields.object("stream_options");
  if (options == nullptr) return;
  if (!job.stream) {
    return fields.fail(invalid_argument("'stream_options' is given, but 'stream' is not true", "stream_options"));
  }
  FieldReader reader(*options, "stream_options.");
  job.include_usage = reader.boolean("include_usage").value_or(false);
  job.include_branches = reader.boolean("include_branches").value_or(false);
  job.continuous_usage = reader.boolean("continuous_usage_stats").value_or(false);
  reader.refuse_unless("include_obfuscation", {false});
  reader.collect_unknown(job.ignored_params);
  if (!reader.ok()) fields.fail(reader.error());
}

// A limit of the request: at most the server's, where that has one.
void read_limit(FieldReader& fields, std::string_view name, std::int32_t low, std::int32_t& limit) {
  limit = fields.integer32(name, {low, limit > 0 ? limit : kMaxInt32}).value_or(limit);
}

void read_extension(FieldReader& fields, const ServedModel& model, Job& job, GenerateRequest& request) {
  request.limits = model.limits;
  const Json* extension = fields.object("multiverse");
  if (extension == nullptr) return;
  FieldReader reader(*extension, "multiverse.");
  request.mode =
      reader.choice<Mode>("mode", {{"parallel", Mode::kParallel}, {"serial", Mode::kSerial}, {"off", Mode::kOff}})
          .value_or(Mode::kParallel);
  request.strict = reader.choice<bool>("structure", {{"free", false}, {"strict", true}}).value_or(false);
  read_limit(reader, "max_running_paths", 1, request.limits.max_running_paths);
  read_limit(reader, "max_paths", 1, request.limits.max_paths);
  read_limit(reader, "max_depth", 1, request.limits.max_depth);
  read_limit(reader, "max_path_tokens", 1, request.limits.max_path_tokens);
  reader.collect_unknown(job.ignored_params);
  if (!reader.ok()) fields.fail(reader.error());
}

bool is_served(const ServedModel& model, const std::string& name) {
  return std::find(model.names.begin(), model.names.end(), name) != model.names.end();
}

}  // namespace

Result<Json> parse_body(std::string_view body, const ServedModel& model) {
  auto parsed = parse_json(body);
  if (!parsed.ok()) return parsed.error();
  if (!parsed.value().is_object()) return invalid_argument("the request body is not a JSON object");
  FieldReader fields(parsed.value());
  const auto name = fields.text("model", 1024);
  if (!fields.ok()) return fields.error();
  if (name && !is_served(model, *name)) {
    return Error{ErrorCode::kNotFound,
                 concat("the model '", name->substr(0, 128), "' is not served here; '", model.names.front(), "' is"),
                 "model", "model_not_found"};
  }
  return parsed;
}

void read_common_fields(FieldReader& fields, const ServedModel& model, std::int32_t default_max_tokens, Job& job,
                        GenerateRequest& request) {
  fields.find("model");  // checked by parse_body
  read_sampling(fields, model, request.sampling);
  const auto seed = fields.integer("seed", {});
  request.seed = seed ? static_cast<std::uint64_t>(*seed) : random_bits();
  request.n = fields.integer32("n", {1, model.max_n}).value_or(1);
  job.return_token_ids = fields.boolean("return_token_ids").value_or(false);
  read_stream(fields, job);
  if (const auto top = fields.integer32("prompt_logprobs", {0, kMaxTopLogprobs})) {
    job.prompt_logprobs = true;
    job.top_prompt_logprobs = *top;
    request.prompt_top_logprobs = *top;
    if (job.stream) {
      fields.fail(invalid_argument("'prompt_logprobs' and 'stream' don't go together", "prompt_logprobs"));
    }
  }
  read_lengths(fields, default_max_tokens, job, request);
  read_stop(fields, model, job, request);
  read_extension(fields, model, job, request);
  request.cache_salt = fields.text("cache_salt", kMaxCacheSaltBytes).value_or("");
  request.priority = fields.integer32("priority", {-kMaxInt32, kMaxInt32}).value_or(0);
}

void refuse_unsupported(FieldReader& fields) {
  for (const char* ignored : {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}) {
    fields.find(ignored);
  }
  fields.boolean("add_special_tokens");             // no tokenizer that is served adds any
  fields.boolean("spaces_between_special_tokens");  // of slow tokenizers only
  fields.refuse_unless("functions", {Json::array()});
  fields.refuse_unless("function_call", {"none"});
  fields.refuse_unless("best_of", {1});
  fields.refuse_unless("suffix", {""});
  fields.refuse_unless("modalities", {Json::array({"text"})});
  fields.refuse_unless("skip_special_tokens", {true});
  for (const char* switched : {"use_beam_search", "continue_final_message"}) {
    fields.refuse_unless(switched, {false});
  }
  for (const char* name :
       {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "json_schema", "regex", "grammar",
        "logits_processors", "audio", "prediction", "web_search_options", "reasoning_effort", "thinking_token_budget",
        "verbosity", "truncate_prompt_tokens", "chat_template", "stop_regex", "bad_words", "allowed_token_ids"}) {
    fields.refuse_unless(name, {});
  }
}

}  // namespace multiverse
