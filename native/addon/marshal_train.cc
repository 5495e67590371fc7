// TrainOptions, TrainRequest, TrainResult and TrainMemory across the boundary.
#include "addon/marshal_train.h"

#include <cmath>
#include <limits>

#include "addon/arguments.h"
#include "addon/marshal.h"

namespace implex::addon {

namespace {

constexpr double kLeast = 1e-30;        // of what must be positive, as f32 too
constexpr double kMostDecay = 0.99999;  // of a running mean's constant: rounded to f32 it stays below 1

OptimizerOptions read_optimizer(const std::string& name, const Napi::Value& value) {
  const Fields fields(name, value);
  OptimizerOptions optimizer;
  optimizer.kind = fields.choice<OptimizerKind>(
      "kind", {{"adamw", OptimizerKind::kAdamW}, {"rmsprop", OptimizerKind::kRmsProp}, {"sgd", OptimizerKind::kSgd}});
  optimizer.beta1 = fields.number("beta1", 0, kMostDecay);
  optimizer.beta2 = fields.number("beta2", 0, kMostDecay);
  optimizer.epsilon = fields.number("epsilon", kLeast, kMostFloat);
  optimizer.weight_decay = fields.number("weightDecay", 0, kMostFloat);
  optimizer.weight_decay_on =
      fields.choice<DecayOn>("weightDecayOn", {{"all", DecayOn::kAll}, {"matrices", DecayOn::kMatrices}});
  optimizer.momentum = fields.number("momentum", 0, 1);
  return optimizer;
}

Frozen read_frozen(const std::string& name, const Napi::Value& value) {
  const Fields fields(name, value);
  Frozen frozen;
  frozen.embedding = fields.boolean("embedding");
  frozen.unembedding = fields.boolean("unembedding");
  frozen.blocks = fields.boolean("blocks");
  frozen.norms = fields.boolean("norms");
  frozen.head = fields.boolean("head");
  return frozen;
}

int32_t read_token(const Fields& fields, const char* field) {
  return static_cast<int32_t>(fields.integer(field, 0, std::numeric_limits<int32_t>::max()));
}

// Absent, or every element finite.
std::vector<double> read_finite_array(const Fields& fields, const char* field) {
  const Napi::Value value = fields.get(field);
  if (!given(value)) return {};
  std::vector<double> values = read_float64_array(fields.name(field), value);
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      throw_out_of_range(fields.name(field) + '[' + std::to_string(i) + ']', "a finite number",
                         Napi::Number::New(value.Env(), values[i]));
    }
  }
  return values;
}

}  // namespace

TrainOptions read_train_options(const Napi::Value& value, int64_t hidden_size) {
  const Fields fields("train", value);
  TrainOptions options;
  options.objective = fields.choice<Objective>("objective", {{"explicit", Objective::kExplicit},
                                                             {"implicit", Objective::kImplicit},
                                                             {"generative", Objective::kGenerative},
                                                             {"sft", Objective::kSft}});
  options.pooling = fields.choice<Pooling>("pool", {{"last", Pooling::kLast}, {"mean", Pooling::kMean}});
  options.beta = fields.number("beta", kLeast, kMostFloat);
  options.length_normalized = fields.boolean("lengthNormalized");
  options.loss.label_smoothing = fields.number("labelSmoothing", 0, 0.5);
  options.loss.centering = fields.number("centering", 0, kMostFloat);
  if (options.objective == Objective::kGenerative) {
    options.yes_token = read_token(fields, "yesToken");
    options.no_token = read_token(fields, "noToken");
  }
  options.optimizer = read_optimizer(fields.name("optimizer"), fields.get("optimizer"));
  options.frozen = read_frozen(fields.name("frozen"), fields.get("frozen"));
  options.recompute = fields.boolean("recompute");
  const Napi::Value head = fields.get("head");
  if (given(head)) {
    options.head = read_float32_array(fields.name("head"), head);
    if (options.objective != Objective::kExplicit) {
      throw_out_of_range(fields.name("head"), "absent unless the objective is \"explicit\"", head);
    }
    check_head(fields.name("head"), options.head, hidden_size, HeadRows::kOne, value.Env());
  }
  return options;
}

TrainBatch read_train_batch(const Napi::Value& value) {
  const Fields fields("batch", value);
  TrainBatch batch;
  batch.request.tokens = fields.int32_array("tokens");
  batch.request.segments = read_segments(fields);
  batch.request.scored = fields.int32_array("scored");
  batch.request.reference = read_finite_array(fields, "reference");
  batch.request.margin = read_finite_array(fields, "margin");
  batch.request.scale = fields.number("scale", kLeast, kMostFloat);
  batch.gradients = fields.boolean("gradients");
  return batch;
}

Napi::Value write_train_result(Napi::Env env, const TrainResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("losses", write_array<Napi::Float64Array>(env, result.losses));
  object.Set("rewards", write_array<Napi::Float64Array>(env, result.rewards));
  return object;
}

Napi::Value write_parameters(Napi::Env env, const std::vector<ParameterEntry>& entries) {
  Napi::Array array = Napi::Array::New(env, entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    const Napi::HandleScope scope(env);
    Napi::Object object = Napi::Object::New(env);
    object.Set("role", entries[i].role);
    object.Set("rows", static_cast<double>(entries[i].rows));
    object.Set("cols", static_cast<double>(entries[i].cols));
    array.Set(static_cast<uint32_t>(i), object);
  }
  return array;
}

Napi::Value write_memory(Napi::Env env, const TrainMemory& memory) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("weights", static_cast<double>(memory.weights));
  object.Set("parameters", static_cast<double>(memory.parameters));
  object.Set("moments", static_cast<double>(memory.moments));
  object.Set("activations", static_cast<double>(memory.activations));
  object.Set("saving", static_cast<double>(memory.saving));
  return object;
}

}  // namespace implex::addon
