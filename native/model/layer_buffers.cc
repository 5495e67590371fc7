// The layout of what MLPs, branches and experts need.
#include "model/layer_buffers.h"

#include <algorithm>

namespace implex {

namespace {

// The same memory with other columns.
ix_mat with_cols(const ix_mat& m, int64_t cols) {
  return m.data == nullptr ? m : ix_mat{m.data, m.dtype, m.rows, cols, cols};
}

int32_t* integers(Arena::Plan& plan, int64_t count) {
  return static_cast<int32_t*>(plan.take(static_cast<size_t>(count) * sizeof(int32_t)));
}

float* floats(Arena::Plan& plan, int64_t count) {
  return static_cast<float*>(plan.take(static_cast<size_t>(count) * sizeof(float)));
}

}  // namespace

LayerWidths widths_of(const ModelSpec& spec, const LayerSpec& layer) {
  LayerWidths w;
  const bool mixed = layer.experts.count > 0;
  w.dense = mixed ? 0 : layer.intermediate_size;
  w.experts = layer.experts.count;
  w.per_token = mixed ? layer.experts.per_token : 0;
  w.expert = mixed ? layer.intermediate_size : 0;
  w.qk_norm = layer.qk_norm != QkNorm::kNone;
  w.post_norm = layer.post_norm;
  w.branch = layer.post_norm || spec.residual_scale != 1;
  return w;
}

LayerWidths widest(const ModelSpec& spec) {
  LayerWidths most;
  for (const LayerSpec& layer : spec.layers) {
    const LayerWidths w = widths_of(spec, layer);
    most.dense = std::max(most.dense, w.dense);
    most.experts = std::max(most.experts, w.experts);
    most.per_token = std::max(most.per_token, w.per_token);
    most.expert = std::max(most.expert, w.expert);
    most.qk_norm = most.qk_norm || w.qk_norm;
    most.post_norm = most.post_norm || w.post_norm;
    most.branch = most.branch || w.branch;
  }
  return most;
}

SharedBuffers place_shared(Arena::Plan& plan, const ModelSpec& spec, DType dtype, int64_t rows) {
  const LayerWidths w = widest(spec);
  SharedBuffers s;
  const int64_t most = std::max(rows, std::min(rows, kExpertTokens) * w.per_token);
  s.hidden = plan.matrix(dtype, std::min(kMlpRows, most), std::max(w.dense, w.expert));
  if (w.branch) s.branch = plan.matrix(DType::kF32, rows, spec.hidden_size);
  if (w.experts > 0) s.expert_in = plan.matrix(dtype, std::min(rows, kExpertTokens) * w.per_token, spec.hidden_size);
  int64_t rank = 0;
  for (const auto& [role, adapter] : spec.adapters) rank = std::max(rank, adapter.rank);
  if (rank == 0) return s;
  s.adapter.scaled = plan.matrix(DType::kF32, most, rank);
  s.adapter.low = plan.matrix(dtype, most, rank);
  const int64_t wide =
      std::max(rows * std::max(spec.heads, spec.kv_heads) * spec.head_dim, s.hidden.rows * s.hidden.cols);
  if (dtype != DType::kF32) s.adapter.sum = floats(plan, wide);
  return s;
}

void place_mlp(Arena::Plan& plan, const ModelSpec& spec, const LayerWidths& w, DType dtype, int64_t rows, bool training,
               const SharedBuffers& shared, LayerBuffers& b) {
  b.adapter = shared.adapter;
  b.attention_branch = b.mlp_branch = b.branch_normed = shared.branch;
  if (training && w.post_norm) {
    b.attention_branch = plan.matrix(DType::kF32, rows, spec.hidden_size);
    b.mlp_branch = plan.matrix(DType::kF32, rows, spec.hidden_size);
  }
  if (w.dense > 0) {
    const int64_t inner = training ? rows : std::min(kMlpRows, rows);
    b.hidden = with_cols(shared.hidden, w.dense);
    b.gate = training ? plan.matrix(dtype, inner, w.dense) : b.hidden;
    b.up = spec.gated ? plan.matrix(dtype, inner, w.dense) : b.gate;
  }
  if (w.experts == 0) return;
  ExpertBuffers& e = b.experts;
  const int64_t block = std::min(rows, kExpertTokens) * w.per_token;
  const int64_t inner = training ? rows * w.per_token : std::min(kMlpRows, block);
  e.router_in = dtype == DType::kF32 ? b.mlp_normed : plan.matrix(DType::kF32, rows, spec.hidden_size);
  e.logits = plan.matrix(DType::kF32, rows, w.experts);
  e.chosen = integers(plan, rows * w.per_token);
  e.weights = floats(plan, rows * w.per_token);
  e.places = integers(plan, rows * w.per_token);
  e.tokens = integers(plan, rows * w.per_token);
  e.in = shared.expert_in;
  e.hidden = with_cols(shared.hidden, w.expert);
  e.gate = training ? plan.matrix(dtype, inner, w.expert) : e.hidden;
  e.up = plan.matrix(dtype, inner, w.expert);
  e.out = plan.matrix(DType::kF32, training ? rows * w.per_token : block, spec.hidden_size);
}

LayerBuffers fitted(const LayerBuffers& b, const LayerSpec& layer) {
  LayerBuffers f = b;
  ExpertBuffers& e = f.experts;
  if (layer.experts.count == 0) {
    for (ix_mat* m : {&f.gate, &f.up, &f.hidden}) *m = with_cols(*m, layer.intermediate_size);
  } else {
    for (ix_mat* m : {&e.gate, &e.up, &e.hidden}) *m = with_cols(*m, layer.intermediate_size);
    e.logits = with_cols(e.logits, layer.experts.count);
  }
  return f;
}

void place_backward(Arena::Plan& plan, const ModelSpec& spec, DType dtype, int64_t rows, BackwardBuffers& g) {
  const LayerWidths w = widest(spec);
  const int64_t block = std::min(rows, kExpertTokens);
  const int64_t inner = std::min(kMlpRows, std::max(rows, block * w.per_token));
  const int64_t width = std::max(w.dense, w.expert);
  g.gate = plan.matrix(dtype, inner, width);
  g.up = spec.gated ? plan.matrix(dtype, inner, width) : g.gate;
  g.hidden = plan.matrix(dtype, inner, width);
  if (w.branch) g.branch = plan.matrix(DType::kF32, rows, spec.hidden_size);
  if (w.experts == 0) return;
  g.expert_out = plan.matrix(dtype, block * w.per_token, spec.hidden_size);
  g.expert_in = plan.matrix(DType::kF32, block * w.per_token, spec.hidden_size);
  g.router_logits = plan.matrix(DType::kF32, block, w.experts);
  g.expert_weights = floats(plan, block * w.per_token);
}

BackwardBuffers fitted(const BackwardBuffers& g, const LayerSpec& layer) {
  BackwardBuffers f = g;
  for (ix_mat* m : {&f.gate, &f.up, &f.hidden}) *m = with_cols(*m, layer.intermediate_size);
  if (layer.experts.count > 0) f.router_logits = with_cols(f.router_logits, layer.experts.count);
  return f;
}

}  // namespace implex
