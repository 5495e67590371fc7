// The tensors of a model, listed once: role, kind, shape and place. Loading, the layout of trained parameters, the
// table of their gradients and the way back from one to the other all walk this list.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/spec.h"

namespace implex {

enum class TensorKind {
  kEmbedding,
  kUnembedding,
  kProjection,  // a projection's matrix
  kBias,        // and its bias
  kRouter,      // that of a mixture of experts, always f32
  kAdapter,     // one of the two matrices of a low-rank adapter
  kNorm,        // a norm's gamma or beta
};

struct TensorPlace {
  std::string role;  // as in WeightSource
  TensorKind kind = TensorKind::kProjection;
  int64_t rows = 0, cols = 0;  // on the device, rows of added tokens included; a vector is one row
  int64_t layer = -1;          // -1: part of no layer
  bool required = true;        // false: a checkpoint may lack it
  double offset = 0;           // added to what the checkpoint stores, on the device only
};

// One layer's tensors and a model's, whatever stands for each: a weight on the device, where its gradient goes,
// nothing. Linear has the members weight, bias and low.a, low.b, Norm has gamma and beta.
template <typename Linear, typename Norm>
struct LayerTensors {
  Norm attention_norm;
  Linear q, k, v, o;
  Norm q_norm, k_norm;
  Norm mlp_norm;
  Norm attention_post_norm, mlp_post_norm;
  Linear gate;  // spec.gated
  Linear up, down;
  Linear router;
  struct Expert {
    Linear gate, up, down;
  };
  std::vector<Expert> experts;  // in place of gate, up and down
};

template <typename Matrix, typename Linear, typename Norm>
struct ModelTensors {
  Matrix embedding{};
  Matrix unembedding{};  // empty when tied or absent
  std::vector<LayerTensors<Linear, Norm>> layers;
  Norm final_norm;
};

// Gives a model as many layers, and a layer as many experts, as the spec says.
template <typename Model>
void resize_layers(const ModelSpec& s, Model& model) {
  model.layers.resize(s.layers.size());
  for (size_t i = 0; i < s.layers.size(); ++i)
    model.layers[i].experts.resize(static_cast<size_t>(s.layers[i].experts.count));
}

// Calls f(name, part, rows, columns) for the projections of a layer's attention, and for those of its MLP or experts.
template <typename Layer, typename F>
void visit_attention_projections(const ModelSpec& s, Layer& l, const F& f) {
  const int64_t q_size = s.heads * s.head_dim;
  const int64_t kv_size = s.kv_heads * s.head_dim;
  f("q", l.q, q_size, s.hidden_size);
  f("k", l.k, kv_size, s.hidden_size);
  f("v", l.v, kv_size, s.hidden_size);
  f("o", l.o, s.hidden_size, q_size);
}
template <typename Layer, typename F>
void visit_mlp_projections(const ModelSpec& s, const LayerSpec& spec, Layer& l, const F& f) {
  const auto mlp = [&](const std::string& prefix, auto& part) {
    if (s.gated) f(prefix + "gate", part.gate, spec.intermediate_size, s.hidden_size);
    f(prefix + "up", part.up, spec.intermediate_size, s.hidden_size);
    f(prefix + "down", part.down, s.hidden_size, spec.intermediate_size);
  };
  if (spec.experts.count == 0) return mlp("", l);
  for (size_t i = 0; i < l.experts.size(); ++i) mlp("experts." + std::to_string(i) + ".", l.experts[i]);
}

// Calls f(place, tensor) for every tensor of a layer: what another spec has no place for is not visited.
template <typename Layer, typename F>
void visit_layer(const ModelSpec& s, int64_t index, Layer& l, const F& f) {
  const std::string at = "layers." + std::to_string(index) + ".";
  const LayerSpec& spec = s.layers[static_cast<size_t>(index)];
  const auto linear = [&](const std::string& name, auto& part, int64_t rows, int64_t cols) {
    f(TensorPlace{at + name, TensorKind::kProjection, rows, cols, index, true}, part.weight);
    f(TensorPlace{at + name + "_bias", TensorKind::kBias, 1, rows, index, false}, part.bias);
    const auto adapter = s.adapters.find(at + name);
    if (adapter == s.adapters.end()) return;
    const int64_t rank = adapter->second.rank;
    f(TensorPlace{at + name + ".lora_a", TensorKind::kAdapter, rank, cols, index, true}, part.low.a);
    f(TensorPlace{at + name + ".lora_b", TensorKind::kAdapter, rows, rank, index, true}, part.low.b);
  };
  const auto norm = [&](const char* name, auto& part, int64_t size) {
    f(TensorPlace{at + name, TensorKind::kNorm, 1, size, index, true, s.norm_offset}, part.gamma);
    f(TensorPlace{at + name + "_bias", TensorKind::kNorm, 1, size, index, false}, part.beta);
  };
  if (spec.pre_norm) norm("attention_norm", l.attention_norm, s.hidden_size);
  visit_attention_projections(s, l, linear);
  if (spec.qk_norm != QkNorm::kNone) {
    const bool head = spec.qk_norm == QkNorm::kHead;
    norm("q_norm", l.q_norm, s.head_dim * (head ? 1 : s.heads));
    norm("k_norm", l.k_norm, s.head_dim * (head ? 1 : s.kv_heads));
  }
  if (spec.post_norm) norm("attention_post_norm", l.attention_post_norm, s.hidden_size);
  if (spec.pre_norm) norm("mlp_norm", l.mlp_norm, s.hidden_size);
  if (spec.experts.count > 0)
    f(TensorPlace{at + "router", TensorKind::kRouter, spec.experts.count, s.hidden_size, index, true}, l.router.weight);
  visit_mlp_projections(s, spec, l, linear);
  if (spec.post_norm) norm("mlp_post_norm", l.mlp_post_norm, s.hidden_size);
}

// The same for every tensor of a model but the reward's head. The model has been through resize_layers.
template <typename Model, typename F>
void visit_tensors(const ModelSpec& s, Model& model, const F& f) {
  f(TensorPlace{"embedding", TensorKind::kEmbedding, s.vocabulary(), s.hidden_size, -1, true}, model.embedding);
  if (!s.tied_embedding)
    f(TensorPlace{"unembedding", TensorKind::kUnembedding, s.vocabulary(), s.hidden_size, -1, false},
      model.unembedding);
  for (size_t i = 0; i < model.layers.size(); ++i) visit_layer(s, static_cast<int64_t>(i), model.layers[i], f);
  f(TensorPlace{"final_norm", TensorKind::kNorm, 1, s.hidden_size, -1, true, s.norm_offset}, model.final_norm.gamma);
  f(TensorPlace{"final_norm_bias", TensorKind::kNorm, 1, s.hidden_size, -1, false}, model.final_norm.beta);
}

// A visitor of several types of tensor, from one function for each.
template <typename... F>
struct EachOf : F... {
  using F::operator()...;
};
template <typename... F>
EachOf(F...) -> EachOf<F...>;

// The places alone.
std::vector<TensorPlace> tensor_places(const ModelSpec& spec);

}  // namespace implex
