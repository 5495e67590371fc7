// One decoder layer, forward and backward, over buffers that the caller lays out. Scoring lets buffers share memory;
// training keeps each.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "model/layer_buffers.h"
#include "model/weights.h"

namespace implex {

// Cosines and sines of positions from 0 on, on the device: [positions, rotary_dim / 2] each.
struct RopeTable {
  const float* cosines = nullptr;
  const float* sines = nullptr;
  int64_t rotary_dim = 0;
};

// What a layer needs to know of the batch.
struct LayerShape {
  const ix_batch* batch;
  const int32_t* rows;     // device [n], or null for all tokens
  const RopeTable* ropes;  // as in ModelSpec
};

// A layer's keys and values of all tokens of a batch, of which one pass computes n.
struct LayerCache {
  ix_mat k, v;          // [T, G*E]
  ix_mat k_new, v_new;  // views of them: the places that this pass fills
  const int32_t* from;  // device: which of the pass's rows goes into each of these places
};

// Where gradients of a layer's parameters are added; null where not wanted.
struct LinearGradient {
  float* weight = nullptr;
  float* bias = nullptr;
  struct {
    float* a = nullptr;
    float* b = nullptr;
  } low;
};
struct NormGradient {
  float* gamma = nullptr;
  float* beta = nullptr;
};
using LayerGradients = LayerTensors<LinearGradient, NormGradient>;

// IX_ACT_* of an activation.
int32_t activation_code(Activation activation);

class Layer {
 public:
  // One of spec.layers, by its index.
  Layer(Device& device, const ModelSpec& spec, DType dtype, int64_t index, const LayerWeights& weights)
      : device_(device),
        spec_(spec),
        layer_(spec.layers[static_cast<size_t>(index)]),
        dtype_(dtype),
        weights_(weights) {}

  // keep: gate, up and hidden have room for all rows and are left filled.
  // cache: the predecessors of these tokens are in it. Then every matrix of `b` has the n rows that shape.rows names,
  // keys and values too, which are added to the cache. The same bits as in a pass over all tokens.
  void forward(const LayerShape& shape, const LayerBuffers& b, bool keep, const LayerCache* cache = nullptr) const;

  // On entry g.stream (g.row_stream when rows are selected) holds the gradient of `out`; on return g.stream holds that
  // of `in`.
  void backward(const LayerShape& shape, const LayerBuffers& b, const LayerGradients& gradients,
                const BackwardBuffers& g) const;

 private:
  void project(const AdapterBuffers& adapter, const ix_mat& in, const Linear& linear, const ix_mat& out,
               const ix_mat* residual = nullptr) const;
  // scale · A x, in the products' dtype.
  ix_mat low_rank_input(const AdapterBuffers& adapter, const LowRank& low, const ix_mat& in) const;
  void norm(const Norm& norm, const ix_mat& in, const ix_mat& out) const;
  // The norm before attention or the MLP; where there is none, `in` in the products' dtype.
  void pre_norm(const Norm& norm, const ix_mat& in, const ix_mat& out) const;
  void pre_norm_backward(const Norm& norm, const ix_mat& in, const ix_mat& grad, const ix_mat& in_grad,
                         const NormGradient& gradient) const;
  void norm_backward(const Norm& norm, const ix_mat& in, const ix_mat& grad, const ix_mat& in_grad, bool accumulate,
                     const NormGradient& gradient) const;
  void rope(const LayerShape& shape, const int32_t* rows, int64_t heads, bool inverse, const ix_mat& x) const;
  int64_t head_norm_width(const ix_mat& m) const;
  void head_norms(const LayerBuffers& b) const;
  // What attention and MLP give is a branch of the residual stream. Most models add it as it is, in the product's
  // epilogue; others scale it or norm it before.
  bool adds_branches_as_they_are() const { return !layer_.post_norm && spec_.residual_scale == 1; }
  void add_branch(const LayerBuffers& b, const ix_mat& branch, const Norm& norm, const ix_mat& residual,
                  const ix_mat& out) const;
  // The gradient of a branch from that of the stream: `stream` itself, or in g.branch.
  ix_mat branch_gradient(const BackwardBuffers& g, const ix_mat& stream, const ix_mat& branch, const Norm& norm,
                         const NormGradient& gradient) const;
  void after_attention(const LayerBuffers& b, bool keep) const;
  // On entry `stream` holds the gradient of `out`, on return that of `row_in` by way of the residual stream alone;
  // attended_grad is overwritten. normed_grad: scratch.
  void after_attention_backward(const LayerBuffers& b, const LayerGradients& gradients, const BackwardBuffers& g,
                                const ix_mat& stream, const ix_mat& normed_grad, const ix_mat& attended_grad) const;
  // Gradients of q and k become those of q_raw and k_raw, in place.
  void head_norms_backward(const LayerBuffers& b, const LayerGradients& gradients, const ix_mat& q_grad,
                           const ix_mat& k_grad) const;
  void mlp_forward(const LayerBuffers& b, bool keep) const;
  void dense_forward(const LayerBuffers& b, bool keep, const ix_mat* residual, const ix_mat& out) const;
  void experts_forward(const LayerBuffers& b, bool keep, const ix_mat* residual, const ix_mat& out) const;
  // out_grad is f32, and may be overwritten if it is not a stream's.
  void experts_backward(const LayerBuffers& b, const LayerGradients& gradients, const BackwardBuffers& g,
                        const ix_mat& out_grad, const ix_mat& normed_grad) const;
  void mlp_backward(const LayerBuffers& b, const LayerGradients& gradients, const BackwardBuffers& g,
                    const ix_mat& out_grad, const ix_mat& normed_grad) const;
  void projection_backward(const AdapterBuffers& adapter, const Linear& linear, const LinearGradient& gradient,
                           const ix_mat& grad, const ix_mat& in, const ix_mat& in_grad, bool accumulate) const;
  ix_mat as_operand(const ix_mat& grad, const ix_mat& scratch) const;
  ix_attention attention_shape() const;

  Device& device_;
  const ModelSpec& spec_;
  const LayerSpec& layer_;
  DType dtype_;
  const LayerWeights& weights_;
};

}  // namespace implex
