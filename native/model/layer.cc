// A decoder layer. The residual stream and its gradient are f32; what enters a product has the weights' dtype.
#include "model/layer.h"

#include <algorithm>

namespace implex {

namespace {

// [N, heads * width] seen as [N * heads, width].
ix_mat heads_of(const ix_mat& m, int64_t width) { return {m.data, m.dtype, m.rows * (m.cols / width), width, width}; }

}  // namespace

int32_t activation_code(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return IX_ACT_SILU;
    case Activation::kGelu:
      return IX_ACT_GELU;
    case Activation::kGeluTanh:
      return IX_ACT_GELU_TANH;
  }
  return IX_ACT_NONE;
}

void Layer::project(const AdapterBuffers& adapter, const ix_mat& in, const Linear& linear, const ix_mat& out,
                    const ix_mat* residual) const {
  const ix_epilogue epilogue = {linear.bias.as<float>(), residual};
  if (!linear.low.a) {
    device_.call(&ix_backend::gemm, &in, linear.weight.get(), &epilogue, &out);
    return;
  }
  // The sum of both products is rounded once.
  const ix_mat sum = out.dtype == IX_F32 ? out : ix_mat{adapter.sum, IX_F32, out.rows, out.cols, out.cols};
  device_.call(&ix_backend::gemm, &in, linear.weight.get(), &epilogue, &sum);
  const ix_mat low = low_rank_input(adapter, linear.low, in);
  const ix_epilogue added = {nullptr, &sum};
  device_.call(&ix_backend::gemm, &low, linear.low.b.get(), &added, &out);
}

ix_mat Layer::low_rank_input(const AdapterBuffers& adapter, const LowRank& low, const ix_mat& in) const {
  const ix_epilogue none = {nullptr, nullptr};
  const ix_mat scaled = with_shape(adapter.scaled, in.rows, low.a.rows());
  const ix_mat out = with_shape(adapter.low, in.rows, low.a.rows());
  device_.call(&ix_backend::gemm, &in, low.a.get(), &none, &scaled);
  device_.call(&ix_backend::scaled_add, &scaled, low.scale, nullptr, &out);
  return out;
}

void Layer::norm(const Norm& norm, const ix_mat& in, const ix_mat& out) const {
  const ix_norm table = norm.table(spec_);
  device_.call(&ix_backend::norm, &table, &in, &out);
}

void Layer::norm_backward(const Norm& norm, const ix_mat& in, const ix_mat& grad, const ix_mat& in_grad,
                          bool accumulate, const NormGradient& gradient) const {
  const ix_norm table = norm.table(spec_);
  device_.call(&ix_backend::norm_backward, &table, &in, &grad, &in_grad, accumulate ? 1 : 0, gradient.gamma,
               gradient.beta);
}

void Layer::rope(const LayerShape& shape, const int32_t* rows, int64_t heads, bool inverse, const ix_mat& x) const {
  if (layer_.rope < 0) return;
  const RopeTable& rope = shape.ropes[layer_.rope];
  const ix_rope table = {rope.cosines,
                         rope.sines,
                         static_cast<int32_t>(heads),
                         static_cast<int32_t>(spec_.head_dim),
                         static_cast<int32_t>(rope.rotary_dim),
                         inverse ? 1 : 0};
  device_.call(&ix_backend::rope, shape.batch, &table, rows, &x);
}

ix_attention Layer::attention_shape() const {
  return {static_cast<int32_t>(spec_.heads),    static_cast<int32_t>(spec_.kv_heads),
          static_cast<int32_t>(spec_.head_dim), static_cast<float>(layer_.attention_scale),
          static_cast<int32_t>(layer_.window),  static_cast<float>(layer_.attention_soft_cap)};
}

void Layer::forward(const LayerShape& shape, const LayerBuffers& b, bool keep, const LayerCache* cache) const {
  const LayerWeights& w = weights_;
  pre_norm(w.attention_norm, b.in, b.normed);
  project(b.adapter, b.normed, w.k, b.k_raw);
  project(b.adapter, b.normed, w.v, b.v);
  if (shape.rows != nullptr && cache == nullptr) {
    // From here on only the rows that are asked for.
    device_.call(&ix_backend::gather_rows, &b.in, shape.rows, &b.row_in);
    device_.call(&ix_backend::gather_rows, &b.normed, shape.rows, &b.row_normed);
  }
  project(b.adapter, b.row_normed, w.q, b.q_raw);
  head_norms(b);
  rope(shape, shape.rows, spec_.heads, false, b.q);
  rope(shape, cache == nullptr ? nullptr : shape.rows, spec_.kv_heads, false, b.k);
  if (cache != nullptr) {
    device_.call(&ix_backend::gather_rows, &b.k, cache->from, &cache->k_new);
    device_.call(&ix_backend::gather_rows, &b.v, cache->from, &cache->v_new);
  }
  const ix_attention attention = attention_shape();
  const ix_mat& k = cache == nullptr ? b.k : cache->k;
  const ix_mat& v = cache == nullptr ? b.v : cache->v;
  device_.call(&ix_backend::attention, shape.batch, &attention, &b.q, shape.rows, &k, &v, &b.attended, b.lse);
  after_attention(b, keep);
}

void Layer::pre_norm(const Norm& norm, const ix_mat& in, const ix_mat& out) const {
  if (layer_.pre_norm) return this->norm(norm, in, out);
  device_.call(&ix_backend::cast, &in, &out);
}

void Layer::pre_norm_backward(const Norm& norm, const ix_mat& in, const ix_mat& grad, const ix_mat& in_grad,
                              const NormGradient& gradient) const {
  if (layer_.pre_norm) return norm_backward(norm, in, grad, in_grad, true, gradient);
  device_.call(&ix_backend::scaled_add, &grad, 1.0f, &in_grad, &in_grad);
}

// What q_norm and k_norm see as a row: a head, or all of a token's heads.
int64_t Layer::head_norm_width(const ix_mat& m) const {
  return layer_.qk_norm == QkNorm::kHead ? spec_.head_dim : m.cols;
}

void Layer::head_norms(const LayerBuffers& b) const {
  if (layer_.qk_norm == QkNorm::kNone) return;
  norm(weights_.q_norm, heads_of(b.q_raw, head_norm_width(b.q)), heads_of(b.q, head_norm_width(b.q)));
  norm(weights_.k_norm, heads_of(b.k_raw, head_norm_width(b.k)), heads_of(b.k, head_norm_width(b.k)));
}

void Layer::add_branch(const LayerBuffers& b, const ix_mat& branch, const Norm& norm, const ix_mat& residual,
                       const ix_mat& out) const {
  const ix_mat normed = layer_.post_norm ? rows_of(b.branch_normed, 0, branch.rows) : branch;
  if (layer_.post_norm) this->norm(norm, branch, normed);
  device_.call(&ix_backend::scaled_add, &normed, static_cast<float>(spec_.residual_scale), &residual, &out);
}

void Layer::after_attention(const LayerBuffers& b, bool keep) const {
  const LayerWeights& w = weights_;
  if (spec_.parallel_residual) norm(w.mlp_norm, b.row_in, b.mlp_normed);  // of the stream before attention is added
  if (adds_branches_as_they_are()) {
    project(b.adapter, b.attended, w.o, b.mid, &b.row_in);
  } else {
    const ix_mat branch = rows_of(b.attention_branch, 0, b.mid.rows);
    project(b.adapter, b.attended, w.o, branch);
    add_branch(b, branch, w.attention_post_norm, b.row_in, b.mid);
  }
  if (!spec_.parallel_residual) pre_norm(w.mlp_norm, b.mid, b.mlp_normed);
  mlp_forward(b, keep);
}

void Layer::mlp_forward(const LayerBuffers& b, bool keep) const {
  const bool direct = adds_branches_as_they_are();
  const ix_mat to = direct ? b.out : rows_of(b.mlp_branch, 0, b.mid.rows);
  const ix_mat* residual = direct ? &b.mid : nullptr;
  if (layer_.experts.count > 0) {
    experts_forward(b, keep, residual, to);
  } else {
    dense_forward(b, keep, residual, to);
  }
  if (!direct) add_branch(b, to, weights_.mlp_post_norm, b.mid, b.out);
}

void Layer::dense_forward(const LayerBuffers& b, bool keep, const ix_mat* residual, const ix_mat& out) const {
  const int32_t activation = activation_code(spec_.activation);
  for (int64_t row = 0; row < b.mid.rows; row += kMlpRows) {
    const int64_t count = std::min(kMlpRows, b.mid.rows - row);
    const int64_t at = keep ? row : 0;
    const ix_mat x = rows_of(b.mlp_normed, row, count);
    const ix_mat gate = rows_of(b.gate, at, count);
    const ix_mat up = rows_of(b.up, at, count);
    const ix_mat hidden = rows_of(b.hidden, 0, count);
    project(b.adapter, x, spec_.gated ? weights_.gate : weights_.up, gate);
    if (spec_.gated) project(b.adapter, x, weights_.up, up);
    device_.call(&ix_backend::glu, activation, &gate, spec_.gated ? &up : nullptr, &hidden);
    const ix_mat added = residual == nullptr ? ix_mat{} : rows_of(*residual, row, count);
    const ix_mat to = rows_of(out, row, count);
    project(b.adapter, hidden, weights_.down, to, residual == nullptr ? nullptr : &added);
  }
}

ix_mat Layer::as_operand(const ix_mat& grad, const ix_mat& scratch) const {
  if (dtype_ == DType::kF32) return grad;
  const ix_mat out = rows_of(scratch, 0, grad.rows);
  device_.call(&ix_backend::cast, &grad, &out);
  return out;
}

void Layer::projection_backward(const AdapterBuffers& adapter, const Linear& linear, const LinearGradient& gradient,
                                const ix_mat& grad, const ix_mat& in, const ix_mat& in_grad, bool accumulate) const {
  if (gradient.weight != nullptr || gradient.bias != nullptr)
    device_.call(&ix_backend::gemm_backward_weight, &grad, &in, gradient.weight, gradient.bias);
  const ix_mat* before = accumulate ? &in_grad : nullptr;
  if (!linear.low.a) {
    device_.call(&ix_backend::gemm_backward_input, &grad, linear.weight.get(), before, &in_grad);
    return;
  }
  const LowRank& low = linear.low;
  if (gradient.low.b != nullptr) {
    const ix_mat low_in = low_rank_input(adapter, low, in);
    device_.call(&ix_backend::gemm_backward_weight, &grad, &low_in, gradient.low.b, nullptr);
  }
  const ix_mat scaled = with_shape(adapter.scaled, in.rows, low.a.rows());
  const ix_mat low_grad = with_shape(adapter.low, in.rows, low.a.rows());
  device_.call(&ix_backend::gemm_backward_input, &grad, low.b.get(), nullptr, &scaled);
  device_.call(&ix_backend::scaled_add, &scaled, low.scale, nullptr, &low_grad);
  if (gradient.low.a != nullptr)
    device_.call(&ix_backend::gemm_backward_weight, &low_grad, &in, gradient.low.a, nullptr);
  const ix_mat sum =
      in_grad.dtype == IX_F32 ? in_grad : ix_mat{adapter.sum, IX_F32, in_grad.rows, in_grad.cols, in_grad.cols};
  device_.call(&ix_backend::gemm_backward_input, &low_grad, low.a.get(), before, &sum);
  device_.call(&ix_backend::gemm_backward_input, &grad, linear.weight.get(), &sum, &in_grad);
}

void Layer::mlp_backward(const LayerBuffers& b, const LayerGradients& gradients, const BackwardBuffers& g,
                         const ix_mat& out_grad, const ix_mat& normed_grad) const {
  const int32_t activation = activation_code(spec_.activation);
  const LinearGradient& first = spec_.gated ? gradients.gate : gradients.up;
  for (int64_t row = 0; row < out_grad.rows; row += kMlpRows) {
    const int64_t count = std::min(kMlpRows, out_grad.rows - row);
    const ix_mat grad = as_operand(rows_of(out_grad, row, count), g.cast);
    const ix_mat gate = rows_of(b.gate, row, count);
    const ix_mat up = rows_of(b.up, row, count);
    const ix_mat* up_or_none = spec_.gated ? &up : nullptr;
    const ix_mat hidden = rows_of(b.hidden, 0, count);
    const ix_mat hidden_grad = rows_of(g.hidden, 0, count);
    const ix_mat gate_grad = rows_of(g.gate, 0, count);
    const ix_mat up_grad = rows_of(g.up, 0, count);
    const ix_mat x = rows_of(b.mlp_normed, row, count);
    const ix_mat x_grad = rows_of(normed_grad, row, count);
    device_.call(&ix_backend::glu, activation, &gate, up_or_none, &hidden);
    projection_backward(b.adapter, weights_.down, gradients.down, grad, hidden, hidden_grad, false);
    device_.call(&ix_backend::glu_backward, activation, &gate, up_or_none, &hidden_grad, &gate_grad,
                 spec_.gated ? &up_grad : nullptr);
    projection_backward(b.adapter, spec_.gated ? weights_.gate : weights_.up, first, gate_grad, x, x_grad, false);
    if (spec_.gated) projection_backward(b.adapter, weights_.up, gradients.up, up_grad, x, x_grad, true);
  }
}

void Layer::after_attention_backward(const LayerBuffers& b, const LayerGradients& gradients, const BackwardBuffers& g,
                                     const ix_mat& stream, const ix_mat& normed_grad,
                                     const ix_mat& attended_grad) const {
  const LayerWeights& w = weights_;
  const auto output_projection = [&] {
    const ix_mat grad =
        branch_gradient(g, stream, b.attention_branch, w.attention_post_norm, gradients.attention_post_norm);
    projection_backward(b.adapter, w.o, gradients.o, as_operand(grad, g.cast), b.attended, attended_grad, false);
  };
  if (spec_.parallel_residual) output_projection();  // before the MLP's share is added to the stream's gradient
  const ix_mat grad = branch_gradient(g, stream, b.mlp_branch, w.mlp_post_norm, gradients.mlp_post_norm);
  if (layer_.experts.count > 0) {
    experts_backward(b, gradients, g, grad, normed_grad);
  } else {
    mlp_backward(b, gradients, g, grad, normed_grad);
  }
  pre_norm_backward(w.mlp_norm, spec_.parallel_residual ? b.row_in : b.mid, normed_grad, stream, gradients.mlp_norm);
  if (!spec_.parallel_residual) output_projection();
}

ix_mat Layer::branch_gradient(const BackwardBuffers& g, const ix_mat& stream, const ix_mat& branch, const Norm& norm,
                              const NormGradient& gradient) const {
  if (adds_branches_as_they_are()) return stream;
  const ix_mat grad = rows_of(g.branch, 0, stream.rows);
  device_.call(&ix_backend::scaled_add, &stream, static_cast<float>(spec_.residual_scale), nullptr, &grad);
  if (layer_.post_norm) norm_backward(norm, rows_of(branch, 0, stream.rows), grad, grad, false, gradient);
  return grad;
}

void Layer::head_norms_backward(const LayerBuffers& b, const LayerGradients& gradients, const ix_mat& q_grad,
                                const ix_mat& k_grad) const {
  if (layer_.qk_norm == QkNorm::kNone) return;
  const int64_t q_width = head_norm_width(q_grad);
  const int64_t k_width = head_norm_width(k_grad);
  const ix_mat q_heads = heads_of(q_grad, q_width);
  const ix_mat k_heads = heads_of(k_grad, k_width);
  norm_backward(weights_.q_norm, heads_of(b.q_raw, q_width), q_heads, q_heads, false, gradients.q_norm);
  norm_backward(weights_.k_norm, heads_of(b.k_raw, k_width), k_heads, k_heads, false, gradients.k_norm);
}

void Layer::backward(const LayerShape& shape, const LayerBuffers& b, const LayerGradients& gradients,
                     const BackwardBuffers& g) const {
  const LayerWeights& w = weights_;
  const bool selected = shape.rows != nullptr;
  const int64_t n = b.mid.rows;
  const ix_mat attended_grad = rows_of(g.attended, 0, n);
  after_attention_backward(b, gradients, g, selected ? g.row_stream : g.stream, selected ? g.row_normed : g.normed,
                           attended_grad);

  const ix_mat q_grad = rows_of(g.q, 0, n);
  const ix_attention attention = attention_shape();
  device_.call(&ix_backend::attention_backward, shape.batch, &attention, &b.q, shape.rows, &b.k, &b.v, &b.attended,
               b.lse, &attended_grad, &q_grad, &g.k, &g.v);
  rope(shape, shape.rows, spec_.heads, true, q_grad);
  rope(shape, nullptr, spec_.kv_heads, true, g.k);
  head_norms_backward(b, gradients, q_grad, g.k);
  projection_backward(b.adapter, w.k, gradients.k, g.k, b.normed, g.normed, false);
  projection_backward(b.adapter, w.v, gradients.v, g.v, b.normed, g.normed, true);
  if (selected) {
    projection_backward(b.adapter, w.q, gradients.q, q_grad, b.row_normed, g.row_normed, false);
    device_.call(&ix_backend::scatter_rows, &g.row_normed, shape.rows, &g.normed, 1);
    device_.call(&ix_backend::scatter_rows, &g.row_stream, shape.rows, &g.stream, 0);
  } else {
    projection_backward(b.adapter, w.q, gradients.q, q_grad, b.normed, g.normed, true);
  }
  pre_norm_backward(w.attention_norm, b.in, g.normed, g.stream, gradients.attention_norm);
}

}  // namespace implex
