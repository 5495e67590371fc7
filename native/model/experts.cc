// A layer's mixture of experts: each token's rows are gathered by expert, so that every expert's products run over its
// own rows without padding, and are added up again by token.
#include <algorithm>
#include <vector>

#include "model/layer.h"

namespace implex {

namespace {

// Rows of one block of tokens, in the order of the experts and of the tokens for each of them.
struct Routing {
  std::vector<int32_t> places;  // [tokens, K]: the row of each choice
  std::vector<int32_t> tokens;  // of each row
  std::vector<int64_t> first;   // an expert's first row; one more than there are experts
};

Routing routing_of(const std::vector<int32_t>& chosen, const ExpertsSpec& experts) {
  Routing r;
  r.first.assign(static_cast<size_t>(experts.count) + 1, 0);
  for (const int32_t expert : chosen) ++r.first[static_cast<size_t>(expert) + 1];
  for (size_t i = 1; i < r.first.size(); ++i) r.first[i] += r.first[i - 1];
  std::vector<int64_t> next(r.first.begin(), r.first.end() - 1);
  r.places.resize(chosen.size());
  r.tokens.resize(chosen.size());
  for (size_t i = 0; i < chosen.size(); ++i) {
    const int64_t row = next[static_cast<size_t>(chosen[i])]++;
    r.places[i] = static_cast<int32_t>(row);
    r.tokens[static_cast<size_t>(row)] = static_cast<int32_t>(i / static_cast<size_t>(experts.per_token));
  }
  return r;
}

Routing download_routing(Device& device, const int32_t* chosen, int64_t tokens, const ExpertsSpec& experts) {
  std::vector<int32_t> choices(static_cast<size_t>(tokens * experts.per_token));
  device.call(&ix_backend::download, choices.data(), chosen, choices.size() * sizeof(int32_t));
  return routing_of(choices, experts);
}

// One block of tokens of the layer's expert buffers.
ExpertBuffers block_of(const ExpertBuffers& e, int64_t first, int64_t count, int64_t per_token, bool keep) {
  ExpertBuffers b = e;
  b.router_in = rows_of(e.router_in, first, count);
  b.logits = rows_of(e.logits, first, count);
  b.chosen = e.chosen + first * per_token;
  b.weights = e.weights + first * per_token;
  b.places = e.places + first * per_token;
  b.tokens = e.tokens + first * per_token;
  b.in = rows_of(e.in, 0, count * per_token);
  b.out = rows_of(e.out, keep ? first * per_token : 0, count * per_token);
  return b;
}

}  // namespace

void Layer::experts_forward(const LayerBuffers& b, bool keep, const ix_mat* residual, const ix_mat& out) const {
  const ExpertsSpec& experts = layer_.experts;
  const auto per_token = static_cast<int32_t>(experts.per_token);
  const int32_t activation = activation_code(spec_.activation);
  const ix_epilogue none = {nullptr, nullptr};
  for (int64_t first = 0; first < out.rows; first += kExpertTokens) {
    const int64_t count = std::min(kExpertTokens, out.rows - first);
    const ExpertBuffers e = block_of(b.experts, first, count, per_token, keep);
    const ix_mat normed = rows_of(b.mlp_normed, first, count);
    if (dtype_ != DType::kF32) device_.call(&ix_backend::cast, &normed, &e.router_in);
    device_.call(&ix_backend::gemm, &e.router_in, weights_.router.weight.get(), &none, &e.logits);
    device_.call(&ix_backend::top_experts, &e.logits, per_token, experts.normalize ? 1 : 0, e.chosen, e.weights);
    const Routing routing = download_routing(device_, e.chosen, count, experts);
    const size_t bytes = routing.tokens.size() * sizeof(int32_t);
    device_.call(&ix_backend::upload, e.places, routing.places.data(), bytes);
    device_.call(&ix_backend::upload, e.tokens, routing.tokens.data(), bytes);
    device_.call(&ix_backend::gather_rows, &normed, e.tokens, &e.in);
    for (size_t x = 0; x < weights_.experts.size(); ++x) {
      const auto& w = weights_.experts[x];
      if (e.load != nullptr) (*e.load)[x] += routing.first[x + 1] - routing.first[x];
      for (int64_t row = routing.first[x]; row < routing.first[x + 1]; row += kMlpRows) {
        const int64_t rows = std::min(kMlpRows, routing.first[x + 1] - row);
        const int64_t at = keep ? first * per_token + row : 0;
        const ix_mat in = rows_of(e.in, row, rows);
        const ix_mat gate = rows_of(e.gate, at, rows);
        const ix_mat up = rows_of(e.up, at, rows);
        const ix_mat hidden = rows_of(e.hidden, 0, rows);
        project(b.adapter, in, w.gate, gate);
        project(b.adapter, in, w.up, up);
        device_.call(&ix_backend::glu, activation, &gate, &up, &hidden);
        project(b.adapter, hidden, w.down, rows_of(e.out, row, rows));
      }
    }
    const ix_mat added = residual == nullptr ? ix_mat{} : rows_of(*residual, first, count);
    const ix_mat to = rows_of(out, first, count);
    device_.call(&ix_backend::combine_experts, &e.out, e.places, e.weights, per_token,
                 residual == nullptr ? nullptr : &added, &to);
  }
}

void Layer::experts_backward(const LayerBuffers& b, const LayerGradients& gradients, const BackwardBuffers& g,
                             const ix_mat& out_grad, const ix_mat& normed_grad) const {
  const ExpertsSpec& experts = layer_.experts;
  const auto per_token = static_cast<int32_t>(experts.per_token);
  const int32_t activation = activation_code(spec_.activation);
  for (int64_t first = 0; first < out_grad.rows; first += kExpertTokens) {
    const int64_t count = std::min(kExpertTokens, out_grad.rows - first);
    const ExpertBuffers e = block_of(b.experts, first, count, per_token, true);
    const Routing routing = download_routing(device_, e.chosen, count, experts);
    const ix_mat normed = rows_of(b.mlp_normed, first, count);
    const ix_mat grad = rows_of(out_grad, first, count);
    const ix_mat expert_out = rows_of(g.expert_out, 0, count * per_token);
    const ix_mat expert_in = rows_of(g.expert_in, 0, count * per_token);
    device_.call(&ix_backend::gather_rows, &normed, e.tokens, &e.in);
    device_.call(&ix_backend::combine_experts_backward, &grad, &e.out, e.places, e.weights, per_token, &expert_out,
                 g.expert_weights);
    for (size_t x = 0; x < weights_.experts.size(); ++x) {
      const auto& w = weights_.experts[x];
      const auto& to = gradients.experts[x];
      for (int64_t row = routing.first[x]; row < routing.first[x + 1]; row += kMlpRows) {
        const int64_t rows = std::min(kMlpRows, routing.first[x + 1] - row);
        const ix_mat gate = rows_of(e.gate, first * per_token + row, rows);
        const ix_mat up = rows_of(e.up, first * per_token + row, rows);
        const ix_mat hidden = rows_of(e.hidden, 0, rows);
        const ix_mat hidden_grad = rows_of(g.hidden, 0, rows);
        const ix_mat gate_grad = rows_of(g.gate, 0, rows);
        const ix_mat up_grad = rows_of(g.up, 0, rows);
        const ix_mat in = rows_of(e.in, row, rows);
        const ix_mat in_grad = rows_of(expert_in, row, rows);
        device_.call(&ix_backend::glu, activation, &gate, &up, &hidden);
        projection_backward(b.adapter, w.down, to.down, rows_of(expert_out, row, rows), hidden, hidden_grad, false);
        device_.call(&ix_backend::glu_backward, activation, &gate, &up, &hidden_grad, &gate_grad, &up_grad);
        projection_backward(b.adapter, w.gate, to.gate, gate_grad, in, in_grad, false);
        projection_backward(b.adapter, w.up, to.up, up_grad, in, in_grad, true);
      }
    }
    const ix_mat to = rows_of(normed_grad, first, count);
    device_.call(&ix_backend::scatter_rows, &expert_in, e.tokens, &to, 0);
    const ix_mat logits_grad = rows_of(g.router_logits, 0, count);
    device_.call(&ix_backend::top_experts_backward, &e.logits, per_token, experts.normalize ? 1 : 0, e.chosen,
                 g.expert_weights, &logits_grad);
    projection_backward(b.adapter, weights_.router, gradients.router, logits_grad, e.router_in, to, true);
  }
}

}  // namespace implex
