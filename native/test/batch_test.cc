// Validation of what comes from outside: ragged batches and model specs. Error codes and cancellation.
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "core/cancel.h"
#include "core/error.h"
#include "core/ragged_batch.h"
#include "model/spec.h"
#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

RaggedBatch batch(const std::vector<int32_t>& tokens, const std::vector<Segment>& segments, int64_t positions = 100) {
  return RaggedBatch(tokens, segments, 10, positions);
}

ModelSpec good_spec() {
  ModelSpec s;
  s.vocab_size = 100;
  s.hidden_size = 32;
  LayerSpec layer;
  layer.intermediate_size = 64;
  s.layers.assign(2, layer);
  s.heads = 4;
  s.kv_heads = 2;
  s.head_dim = 8;
  s.max_positions = 128;
  s.norm_eps = 1e-5;
  s.ropes = {{4, {1, 0.1}, 1}};
  return s;
}

void refuse_changed(const char* name, const std::function<void(ModelSpec&)>& change) {
  ModelSpec s = good_spec();
  change(s);
  CHECK_ERROR(ErrorCode::kConfigInvalid, (validate(s), 0), name);
}

template <typename T>
void refuse(const char* name, T ModelSpec::*field, std::initializer_list<T> values) {
  for (const T& value : values) refuse_changed(name, [&](ModelSpec& s) { s.*field = value; });
}

// In the second layer.
template <typename T>
void refuse_layer(const char* name, T LayerSpec::*field, std::initializer_list<T> values) {
  for (const T& value : values)
    refuse_changed((std::string("layers[1]") + name).c_str(), [&](ModelSpec& s) { s.layers[1].*field = value; });
}

}  // namespace

TEST(ragged_batch_accepts) {
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 0, 9};
  const RaggedBatch b = batch(tokens, {{0, 3, -1}, {3, 2, 0}, {5, 1, 0}, {6, 1, -1}});
  CHECK(b.size() == 7 && &b.tokens() == &tokens, "tokens are the caller's");
  CHECK(b.segments().size() == 4 && b.segments()[2].start == 5 && b.segments()[2].length == 1 &&
            b.segments()[2].parent == 0,
        "segments");
  CHECK(b.predecessor(0) == -1 && b.predecessor(1) == 2 && b.predecessor(2) == 2 && b.predecessor(3) == -1,
        "predecessors");
  CHECK(b.last_token(0) == 2 && b.last_token(1) == 4 && b.last_token(3) == 6, "last tokens");
  batch(tokens, {{0, 4, -1}, {4, 3, 0}}, 7);  // exactly fills the context
}

TEST(ragged_batch_refuses) {
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5};
  const int32_t most = std::numeric_limits<int32_t>::max(), least = std::numeric_limits<int32_t>::min();
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch({}, {}), "at least one token");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {}), "0 of 5 tokens");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 4, -1}}), "4 of 5 tokens");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 3, -1}, {3, 0, 0}, {3, 2, 0}}), "segment 1 is empty");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, -1, -1}}), "empty");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, least, -1}}), "empty");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, most, -1}}), "without gaps");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 6, -1}}), "without gaps");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{1, 4, -1}}), "without gaps");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 2, -1}, {1, 3, -1}}), "without gaps");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 2, -1}, {3, 2, -1}}), "without gaps");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{most, most, -1}}), "without gaps");
  for (const int32_t parent : {-2, least, 1, 2, most})
    CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 2, -1}, {2, 3, parent}}), "parent");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 2, 0}, {2, 3, -1}}), "parent");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 2, -1}, {2, 1, 0}, {3, 2, 1}}), "without a parent");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 2, -1}, {2, 3, 0}}, 4), "context of 4");
  CHECK_ERROR(ErrorCode::kBatchInvalid, batch(tokens, {{0, 5, -1}}, 4), "context of 4");
  for (const int32_t token : {-1, 10, most, least})
    CHECK_ERROR(ErrorCode::kTokenRange, batch({1, token}, {{0, 2, -1}}), "index 1");
}

TEST(model_spec_validation) {
  validate(good_spec());
  ModelSpec edge = good_spec();
  edge.ropes.clear();
  for (LayerSpec& layer : edge.layers) layer.rope = -1;
  edge.norm_eps = 0;
  validate(edge);

  const int64_t most = std::numeric_limits<int64_t>::max(), least = std::numeric_limits<int64_t>::min();
  refuse<int64_t>("vocabSize", &ModelSpec::vocab_size, {0, -1, least, most});
  refuse<int64_t>("addedTokens", &ModelSpec::added_tokens, {-1, least, most});
  refuse<int64_t>("hiddenSize", &ModelSpec::hidden_size, {0, -1, least, most});
  refuse<std::vector<LayerSpec>>("layers", &ModelSpec::layers, {{}, std::vector<LayerSpec>(5000)});
  refuse<int64_t>("heads", &ModelSpec::heads, {0, -1, most});
  refuse<int64_t>("kvHeads", &ModelSpec::kv_heads, {0, -1, 3, 8, most});
  refuse<int64_t>("headDim", &ModelSpec::head_dim, {0, -1, most});
  refuse_layer<int64_t>(".intermediateSize", &LayerSpec::intermediate_size, {0, -1, most});
  refuse_layer<int64_t>(".window", &LayerSpec::window, {-1, most});
  refuse_layer<int64_t>(".rope", &LayerSpec::rope, {-2, 1, most});
  refuse_layer<double>(".attentionScale", &LayerSpec::attention_scale, {0, -1, std::nan(""), HUGE_VAL});
  refuse_layer<double>(".attentionSoftCap", &LayerSpec::attention_soft_cap, {-1, 1e-9, std::nan(""), HUGE_VAL});
  refuse_layer<ExpertsSpec>(".experts.count", &LayerSpec::experts, {{-1, 1, false}, {most, 1, false}});
  refuse_layer<ExpertsSpec>(".experts.perToken", &LayerSpec::experts, {{4, 0, false}, {4, 5, true}});
  refuse_layer<bool>(" has no norms", &LayerSpec::pre_norm, {false});
  refuse<int64_t>("maxPositions", &ModelSpec::max_positions, {0, -1, most});
  refuse<double>("normEps", &ModelSpec::norm_eps, {-1e-9, 1, std::nan(""), HUGE_VAL});
  for (const double scale : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    refuse("embeddingScale", &ModelSpec::embedding_scale, {scale});
    refuse("residualScale", &ModelSpec::residual_scale, {scale});
    refuse("logitScale", &ModelSpec::logit_scale, {scale});
    refuse_changed("ropes[0].scale", [&](ModelSpec& s) { s.ropes[0].scale = scale; });
  }
  refuse<double>("logitSoftCap", &ModelSpec::logit_soft_cap, {-1, std::nan(""), HUGE_VAL});
  refuse<double>("normOffset", &ModelSpec::norm_offset, {2, std::nan("")});
  for (const int64_t dim : {int64_t{-2}, int64_t{0}, int64_t{3}, int64_t{10}, most})
    refuse_changed("ropes[0].rotaryDim", [&](ModelSpec& s) { s.ropes[0].rotary_dim = dim; });
  for (const std::vector<double>& values : {std::vector<double>{}, {1}, {1, 2, 3}, {1, std::nan("")}, {HUGE_VAL, 1}})
    refuse_changed("inverseFrequencies", [&](ModelSpec& s) { s.ropes[0].inverse_frequencies = values; });
  refuse_changed("a parallel residual", [](ModelSpec& s) {
    s.parallel_residual = true;
    s.layers[0].post_norm = true;
  });
  refuse_changed("experts are gated", [](ModelSpec& s) {
    s.gated = false;
    s.layers[1].experts = {4, 2, false};
  });
}

TEST(error_codes_have_their_names) {
  std::set<std::string> names;
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    const std::string name = error_code_name(static_cast<ErrorCode>(code));
    CHECK(name.rfind("ERR_", 0) == 0 && names.insert(name).second, "code %d is called %s", code, name.c_str());
  }
  const Error error(ErrorCode::kTensorShape, "why");
  CHECK(error.code() == ErrorCode::kTensorShape && std::string(error.what()) == "why",
        "an error keeps code and message");
}

TEST(cancel_flag) {
  CancelFlag flag;
  flag.check();
  CHECK(!flag.cancelled(), "fresh");
  flag.cancel();
  flag.cancel();
  CHECK(flag.cancelled(), "cancelled");
  CHECK_ERROR(ErrorCode::kAborted, (flag.check(), 0), "aborted");
}
