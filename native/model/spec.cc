// Validation of a ModelSpec: nothing after this divides by zero, overflows or allocates without bound because of a
// number in a config.
#include "model/spec.h"

#include <cmath>

#include "core/error.h"

namespace implex {

namespace {

void require(bool holds, const std::string& message) {
  if (!holds) throw Error(ErrorCode::kConfigInvalid, message);
}

void in_range(const std::string& name, int64_t value, int64_t low, int64_t high) {
  require(value >= low && value <= high,
          name + " is " + std::to_string(value) + ", outside " + std::to_string(low) + " to " + std::to_string(high));
}

void positive(const std::string& name, double value) {
  require(std::isfinite(value) && value > 0 && value < 1e9, name + " is not a positive number");
}

void soft_cap(const std::string& name, double value) {
  require(value == 0 || (std::isfinite(value) && value >= 1e-3 && value < 1e9),
          name + " is neither 0 nor a cap from 0.001");
}

void validate_rope(const ModelSpec& s, size_t index) {
  const RopeSpec& rope = s.ropes[index];
  const std::string name = "ropes[" + std::to_string(index) + "]";
  in_range(name + ".rotaryDim", rope.rotary_dim, 2, s.head_dim);
  require(rope.rotary_dim % 2 == 0, name + ".rotaryDim (" + std::to_string(rope.rotary_dim) + ") is odd");
  require(static_cast<int64_t>(rope.inverse_frequencies.size()) == rope.rotary_dim / 2,
          name + ".inverseFrequencies has " + std::to_string(rope.inverse_frequencies.size()) +
              " values, rotaryDim asks for " + std::to_string(rope.rotary_dim / 2));
  for (const double f : rope.inverse_frequencies)
    require(std::isfinite(f), name + ".inverseFrequencies holds a value that is not finite");
  positive(name + ".scale", rope.scale);
}

void validate_layer(const ModelSpec& s, size_t index) {
  const LayerSpec& layer = s.layers[index];
  const std::string name = "layers[" + std::to_string(index) + "]";
  require(layer.pre_norm || layer.post_norm, name + " has no norms");
  require(!(s.parallel_residual && (layer.post_norm || !layer.pre_norm)),
          name + ": a parallel residual has norms before attention and MLP, none after");
  in_range(name + ".window", layer.window, 0, 1 << 30);
  positive(name + ".attentionScale", layer.attention_scale);
  soft_cap(name + ".attentionSoftCap", layer.attention_soft_cap);
  in_range(name + ".rope", layer.rope, -1, static_cast<int64_t>(s.ropes.size()) - 1);
  in_range(name + ".intermediateSize", layer.intermediate_size, 1, 1 << 22);
  in_range(name + ".experts.count", layer.experts.count, 0, 4096);
  if (layer.experts.count == 0) return;
  in_range(name + ".experts.perToken", layer.experts.per_token, 1, layer.experts.count);
  require(!s.parallel_residual && s.gated, name + ": experts are gated and come after attention");
}

}  // namespace

void validate(const ModelSpec& s) {
  in_range("vocabSize", s.vocab_size, 1, int64_t{1} << 24);
  in_range("addedTokens", s.added_tokens, 0, 1 << 16);
  in_range("hiddenSize", s.hidden_size, 1, 1 << 20);
  in_range("layers", s.layer_count(), 1, 4096);
  in_range("heads", s.heads, 1, 4096);
  in_range("kvHeads", s.kv_heads, 1, 4096);
  in_range("headDim", s.head_dim, 1, 4096);
  in_range("maxPositions", s.max_positions, 1, 1 << 26);
  require(s.heads % s.kv_heads == 0,
          "kvHeads (" + std::to_string(s.kv_heads) + ") does not divide heads (" + std::to_string(s.heads) + ")");
  require(std::isfinite(s.norm_eps) && s.norm_eps >= 0 && s.norm_eps < 1, "normEps is not a number from 0 to 1");
  require(std::isfinite(s.norm_offset) && std::abs(s.norm_offset) <= 1, "normOffset is not a number from -1 to 1");
  positive("embeddingScale", s.embedding_scale);
  positive("residualScale", s.residual_scale);
  positive("logitScale", s.logit_scale);
  soft_cap("logitSoftCap", s.logit_soft_cap);
  in_range("ropes", static_cast<int64_t>(s.ropes.size()), 0, 8);
  for (size_t i = 0; i < s.ropes.size(); ++i) validate_rope(s, i);
  for (const auto& [role, adapter] : s.adapters) {
    in_range("the rank of the adapter of " + role, adapter.rank, 1, 1 << 16);
    require(std::isfinite(adapter.scale) && std::abs(adapter.scale) < 1e9,
            "the scale of the adapter of " + role + " is not a number");
  }
  int64_t experts = 0;
  for (size_t i = 0; i < s.layers.size(); ++i) {
    validate_layer(s, i);
    experts += s.layers[i].experts.count;
  }
  in_range("the number of all experts", experts, 0, 1 << 18);
}

}  // namespace implex
