// ModelSpec, LoadOptions, ScoreRequest and ScoreResult across the boundary.
#include "addon/marshal.h"

#include <cmath>
#include <limits>

#include "addon/host.h"

namespace implex::addon {

namespace {

constexpr uint32_t kMaxDimensions = 8;

std::vector<int64_t> read_shape(const std::string& name, const Napi::Value& value) {
  const Napi::Array array = read_array(name, value);
  const uint32_t length = array.Length();
  if (length > kMaxDimensions) throw_out_of_range(name, "an array of at most 8 dimensions", value);
  std::vector<int64_t> shape;
  for (uint32_t i = 0; i < length; ++i)
    shape.push_back(read_integer(name + '[' + std::to_string(i) + ']', array.Get(i)));
  return shape;
}

}  // namespace

WeightSource read_weight(const std::string& name, const Napi::Value& value) {
  const Fields fields(name, value);
  WeightSource weight;
  weight.role = fields.string("role");
  weight.tensor = fields.string("tensor");
  weight.file = fields.path("file");
  weight.offset = static_cast<uint64_t>(fields.integer("offset"));
  weight.bytes = static_cast<uint64_t>(fields.integer("bytes"));
  weight.dtype = fields.choice<DType>("dtype", {{"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBf16}});
  weight.shape = read_shape(fields.name("shape"), fields.get("shape"));
  const Napi::Value rows = fields.get("rows");
  if (given(rows)) {
    const Fields selection(fields.name("rows"), rows);
    weight.has_selection = true;
    weight.selection.start = selection.integer("start");
    weight.selection.block = selection.integer("block");
    weight.selection.stride = selection.integer("stride");
  }
  return weight;
}

namespace {

RopeSpec read_rope(const std::string& name, const Napi::Value& value) {
  const Fields fields(name, value);
  RopeSpec rope;
  rope.rotary_dim = fields.integer("rotaryDim");
  rope.inverse_frequencies = read_float64_array(fields.name("inverseFrequencies"), fields.get("inverseFrequencies"));
  rope.scale = fields.finite("scale");
  return rope;
}

LayerSpec read_layer(const std::string& name, const Napi::Value& value) {
  const Fields fields(name, value);
  LayerSpec layer;
  layer.pre_norm = fields.boolean("preNorm");
  layer.post_norm = fields.boolean("postNorm");
  layer.window = fields.integer("window");
  layer.attention_scale = fields.finite("attentionScale");
  layer.attention_soft_cap = fields.finite("attentionSoftCap");
  layer.rope = fields.integer("rope", -1);
  layer.qk_norm =
      fields.choice<QkNorm>("qkNorm", {{"none", QkNorm::kNone}, {"head", QkNorm::kHead}, {"width", QkNorm::kWidth}});
  layer.intermediate_size = fields.integer("intermediateSize");
  const Napi::Value experts = fields.get("experts");
  if (given(experts)) {
    const Fields e(fields.name("experts"), experts);
    layer.experts.count = e.integer("count");
    layer.experts.per_token = e.integer("perToken");
    layer.experts.normalize = e.boolean("normalize");
  }
  return layer;
}

// Each element of an array, read by `read(name, value)`.
template <typename T, typename F>
std::vector<T> read_all(const Fields& fields, const char* key, const F& read) {
  const Napi::Array array = read_array(fields.name(key), fields.get(key));
  std::vector<T> all;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::HandleScope scope(array.Env());  // a large model has thousands of weights
    all.push_back(read(fields.name(key) + '[' + std::to_string(i) + ']', array.Get(i)));
  }
  return all;
}

}  // namespace

ModelSpec read_spec(const Napi::Value& value) {
  const Fields fields("spec", value);
  ModelSpec spec;
  spec.family = fields.string("family");
  spec.vocab_size = fields.integer("vocabSize");
  spec.added_tokens = fields.integer("addedTokens");
  spec.hidden_size = fields.integer("hiddenSize");
  spec.heads = fields.integer("heads");
  spec.kv_heads = fields.integer("kvHeads");
  spec.head_dim = fields.integer("headDim");
  spec.max_positions = fields.integer("maxPositions");
  spec.norm = fields.choice<NormKind>("norm", {{"rms", NormKind::kRms}, {"layer", NormKind::kLayer}});
  spec.norm_eps = fields.finite("normEps");
  spec.norm_offset = fields.finite("normOffset");
  spec.activation = fields.choice<Activation>(
      "activation", {{"silu", Activation::kSilu}, {"gelu", Activation::kGelu}, {"gelu_tanh", Activation::kGeluTanh}});
  spec.gated = fields.boolean("gated");
  spec.parallel_residual = fields.boolean("parallelResidual");
  spec.embedding_scale = fields.finite("embeddingScale");
  spec.residual_scale = fields.finite("residualScale");
  spec.logit_scale = fields.finite("logitScale");
  spec.logit_soft_cap = fields.finite("logitSoftCap");
  spec.layers = read_all<LayerSpec>(fields, "layers", read_layer);
  spec.ropes = read_all<RopeSpec>(fields, "ropes", read_rope);
  spec.tied_embedding = fields.boolean("tiedEmbedding");
  if (given(fields.get("adapters"))) {
    const Napi::Array adapters = read_array(fields.name("adapters"), fields.get("adapters"));
    for (uint32_t i = 0; i < adapters.Length(); ++i) {
      const Napi::HandleScope scope(value.Env());
      const Fields adapter(fields.name("adapters") + '[' + std::to_string(i) + ']', adapters.Get(i));
      const AdapterSpec numbers = {adapter.integer("rank"), adapter.finite("scale")};
      if (!spec.adapters.emplace(adapter.string("role"), numbers).second)
        throw_out_of_range(adapter.name("role"), "given once", adapter.get("role"));
    }
  }
  spec.weights = read_all<WeightSource>(fields, "weights", read_weight);
  return spec;
}

LoadOptions read_load_options(const Napi::Value& value) {
  const Fields fields("options", value);
  LoadOptions options;
  options.device = fields.choice<const char*>("device", {{"cpu", "cpu"}, {"cuda", "cuda"}});
  if (options.device != "cpu") options.device_path = fields.path("devicePath");
  options.dtype = fields.choice<DType>("dtype", {{"f32", DType::kF32}, {"bf16", DType::kBf16}});
  return options;
}

std::vector<Segment> read_segments(const Fields& batch) {
  const Napi::Value value = batch.get("segments");
  const std::vector<int32_t> numbers = read_int32_array(batch.name("segments"), value);
  if (numbers.size() % 3 != 0) {
    throw_out_of_range(batch.name("segments"), "triples of start, length and parent",
                       Napi::Number::New(value.Env(), static_cast<double>(numbers.size())));
  }
  std::vector<Segment> segments;
  segments.reserve(numbers.size() / 3);
  for (size_t i = 0; i < numbers.size(); i += 3) segments.push_back({numbers[i], numbers[i + 1], numbers[i + 2]});
  return segments;
}

void check_head(const std::string& name, const std::vector<float>& head, int64_t hidden_size, HeadRows rows,
                Napi::Env env) {
  const auto size = static_cast<int64_t>(head.size());
  if (rows == HeadRows::kOne ? size != hidden_size : size == 0 || size % hidden_size != 0) {
    const char* times = rows == HeadRows::kOne ? "" : "one or more times ";
    throw_out_of_range(name, times + ("of the model's hidden size, " + std::to_string(hidden_size) + " elements"),
                       Napi::Number::New(env, static_cast<double>(head.size())));
  }
  for (size_t i = 0; i < head.size(); ++i) {
    if (!std::isfinite(head[i])) {
      throw to_js_error(env,
                        {ErrorCode::kWeightNotFinite, "element " + std::to_string(i) + " of the head is not finite"});
    }
  }
}

ScoreRequest read_request(const Napi::Value& value) {
  const Fields fields("batch", value);
  ScoreRequest request;
  request.tokens = fields.int32_array("tokens");
  request.segments = read_segments(fields);
  request.scored = fields.int32_array("scored");
  request.readout = fields.choice<Readout>("readout", {{"logprob", Readout::kLogprob},
                                                       {"reward_last", Readout::kRewardLast},
                                                       {"reward_mean", Readout::kRewardMean},
                                                       {"reward_tokens", Readout::kRewardTokens},
                                                       {"next_token", Readout::kNextToken},
                                                       {"hidden_last", Readout::kHiddenLast}});
  if (request.readout == Readout::kNextToken) {
    request.target_token = static_cast<int32_t>(
        read_integer(fields.name("targetToken"), fields.get("targetToken"), 0, std::numeric_limits<int32_t>::max()));
    const Napi::Value other = fields.get("otherToken");
    if (given(other)) {
      request.other_token =
          static_cast<int32_t>(read_integer(fields.name("otherToken"), other, 0, std::numeric_limits<int32_t>::max()));
    }
  }
  const Napi::Value read_at = fields.get("readAt");
  if (given(read_at)) request.read_at = read_int32_array(fields.name("readAt"), read_at);
  const Napi::Value token_logprobs = fields.get("tokenLogprobs");
  if (given(token_logprobs)) request.token_logprobs = read_boolean(fields.name("tokenLogprobs"), token_logprobs);
  if (request.token_logprobs && request.readout != Readout::kLogprob) {
    throw_out_of_range(fields.name("tokenLogprobs"), "false unless the read-out is \"logprob\"", token_logprobs);
  }
  return request;
}

Napi::Object write_result(Napi::Env env, const ScoreResult& result, bool token_logprobs) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("values", write_array<Napi::Float64Array>(env, result.values));
  if (token_logprobs) object.Set("tokenLogprobs", write_array<Napi::Float32Array>(env, result.token_logprobs));
  if (!result.expert_load.empty()) object.Set("expertLoad", write_array<Napi::Float64Array>(env, result.expert_load));
  return object;
}

}  // namespace implex::addon
