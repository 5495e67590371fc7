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
  kNorm,        // a norm's gamma or beta
};

struct TensorPlace {
  std::string role;  // as in WeightSource
  TensorKind kind = TensorKind::kProjection;
  int64_t rows = 0, cols = 0;  // on the device, rows of added tokens included; a vector is one row
  int64_t layer = -1;          // -1: part of no layer
  bool required = true;        // false: a checkpoint may lack it
};

// One layer's tensors and a model's, whatever stands for each: a weight on the device, where its gradient goes,
// nothing. Linear has the members weight and bias, Norm has gamma and beta.
template <typename Linear, typename Norm>
struct LayerTensors {
  Norm attention_norm;
  Linear q, k, v, o;
  Norm q_norm, k_norm;  // spec.qk_norm
  Norm mlp_norm;
  Linear gate;  // spec.gated
  Linear up, down;
};

template <typename Matrix, typename Linear, typename Norm>
struct ModelTensors {
  Matrix embedding{};
  Matrix unembedding{};  // empty when tied or absent
  std::vector<LayerTensors<Linear, Norm>> layers;
  Norm final_norm;
};

// Calls f(place, tensor) for every tensor of a layer: what another spec has no place for is not visited.
template <typename Layer, typename F>
void visit_layer(const ModelSpec& s, int64_t index, Layer& l, const F& f) {
  const std::string at = "layers." + std::to_string(index) + ".";
  const auto linear = [&](const char* name, auto& part, int64_t rows, int64_t cols) {
    f(TensorPlace{at + name, TensorKind::kProjection, rows, cols, index, true}, part.weight);
    f(TensorPlace{at + name + "_bias", TensorKind::kBias, 1, rows, index, false}, part.bias);
  };
  const auto norm = [&](const char* name, auto& part, int64_t size) {
    f(TensorPlace{at + name, TensorKind::kNorm, 1, size, index, true}, part.gamma);
    f(TensorPlace{at + name + "_bias", TensorKind::kNorm, 1, size, index, false}, part.beta);
  };
  const int64_t q_size = s.heads * s.head_dim;
  const int64_t kv_size = s.kv_heads * s.head_dim;
  norm("attention_norm", l.attention_norm, s.hidden_size);
  linear("q", l.q, q_size, s.hidden_size);
  linear("k", l.k, kv_size, s.hidden_size);
  linear("v", l.v, kv_size, s.hidden_size);
  linear("o", l.o, s.hidden_size, q_size);
  if (s.qk_norm) {
    norm("q_norm", l.q_norm, s.head_dim);
    norm("k_norm", l.k_norm, s.head_dim);
  }
  norm("mlp_norm", l.mlp_norm, s.hidden_size);
  if (s.gated) linear("gate", l.gate, s.intermediate_size, s.hidden_size);
  linear("up", l.up, s.intermediate_size, s.hidden_size);
  linear("down", l.down, s.hidden_size, s.intermediate_size);
}

// The same for every tensor of a model but the reward's head. `model.layers` has spec.layers elements.
template <typename Model, typename F>
void visit_tensors(const ModelSpec& s, Model& model, const F& f) {
  f(TensorPlace{"embedding", TensorKind::kEmbedding, s.vocabulary(), s.hidden_size, -1, true}, model.embedding);
  if (!s.tied_embedding)
    f(TensorPlace{"unembedding", TensorKind::kUnembedding, s.vocabulary(), s.hidden_size, -1, false},
      model.unembedding);
  for (size_t i = 0; i < model.layers.size(); ++i) visit_layer(s, static_cast<int64_t>(i), model.layers[i], f);
  f(TensorPlace{"final_norm", TensorKind::kNorm, 1, s.hidden_size, -1, true}, model.final_norm.gamma);
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
