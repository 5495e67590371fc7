// One decoder layer, forward and backward, over buffers that the caller lays out. Scoring lets buffers share memory;
// training keeps each.
#pragma once

#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "model/weights.h"

namespace implex {

// T tokens of the batch; n rows that the layer computes queries and MLP for: all T, or in the last layer the rows that
// a read-out needs.
struct LayerBuffers {
  ix_mat in;             // f32 [T, D] residual stream
  ix_mat row_in;         // f32 [n, D]: `in` itself, or the rows gathered from it
  ix_mat normed;         // [T, D]
  ix_mat row_normed;     // [n, D]
  ix_mat q_raw, k_raw;   // before the head norms and rotation; may be q and k
  ix_mat q, k, v;        // [n, H*E], [T, G*E], [T, G*E]
  ix_mat attended;       // [n, H*E]
  float* lse = nullptr;  // [n, H], for the backward pass
  ix_mat mid;            // f32 [n, D] stream after attention; may be row_in
  ix_mat mlp_normed;     // [n, D]; may be normed unless the residual is parallel
  ix_mat gate, up;  // [n or kMlpRows, F]; without a gated MLP `gate` is what the activation takes and `up` is unused
  ix_mat hidden;    // [kMlpRows, F]; may be gate
  ix_mat out;       // f32 [n, D]; may be mid
};

// What a layer needs to know of the batch.
struct LayerShape {
  const ix_batch* batch;
  const int32_t* rows;  // device [n], or null for all tokens
  const float* cosines;
  const float* sines;
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
};
struct NormGradient {
  float* gamma = nullptr;
  float* beta = nullptr;
};
using LayerGradients = LayerTensors<LinearGradient, NormGradient>;

// Scratch of the backward pass, shared by all layers.
struct BackwardBuffers {
  ix_mat stream;      // f32 [T, D]: gradient of a layer's output, then of its input
  ix_mat row_stream;  // f32 [R, D]: the same for the last layer's rows
  ix_mat cast;        // [T, D]: `stream` in the products' dtype (unused for f32)
  ix_mat normed;      // f32 [T, D]
  ix_mat row_normed;  // f32 [R, D]
  ix_mat attended;    // [T, H*E]
  ix_mat q, k, v;     // [T, H*E], [T, G*E], [T, G*E]
  ix_mat gate, up;    // [kMlpRows, F]
  ix_mat hidden;      // [kMlpRows, F]
};

// Rows of the MLP's inner activations that are worked on at once: they are by far the widest of a layer. Part of the
// numerical contract of training, where a weight's gradient is summed block by block.
constexpr int64_t kMlpRows = 512;

class Layer {
 public:
  Layer(Device& device, const ModelSpec& spec, DType dtype, const LayerWeights& weights)
      : device_(device), spec_(spec), dtype_(dtype), weights_(weights) {}

  // keep: gate, up and hidden have room for all rows and are left filled.
  // cache: the predecessors of these tokens are in it. Then every matrix of `b` has the n rows that shape.rows names,
  // keys and values too, which are added to the cache. The same bits as in a pass over all tokens.
  void forward(const LayerShape& shape, const LayerBuffers& b, bool keep, const LayerCache* cache = nullptr) const;

  // On entry g.stream (g.row_stream when rows are selected) holds the gradient of `out`; on return g.stream holds that
  // of `in`.
  void backward(const LayerShape& shape, const LayerBuffers& b, const LayerGradients& gradients,
                const BackwardBuffers& g) const;

 private:
  void project(const ix_mat& in, const Linear& linear, const ix_mat& out, const ix_mat* residual = nullptr) const;
  void norm(const Norm& norm, const ix_mat& in, const ix_mat& out) const;
  void norm_backward(const Norm& norm, const ix_mat& in, const ix_mat& grad, const ix_mat& in_grad, bool accumulate,
                     const NormGradient& gradient) const;
  void rope(const LayerShape& shape, const int32_t* rows, int64_t heads, bool inverse, const ix_mat& x) const;
  void head_norms(const LayerBuffers& b) const;
  void after_attention(const LayerBuffers& b, bool keep) const;
  // On entry `stream` holds the gradient of `out`, on return that of `row_in` by way of the residual stream alone;
  // attended_grad is overwritten. normed_grad: scratch.
  void after_attention_backward(const LayerBuffers& b, const LayerGradients& gradients, const BackwardBuffers& g,
                                const ix_mat& stream, const ix_mat& normed_grad, const ix_mat& attended_grad) const;
  // Gradients of q and k become those of q_raw and k_raw, in place.
  void head_norms_backward(const LayerBuffers& b, const LayerGradients& gradients, const ix_mat& q_grad,
                           const ix_mat& k_grad) const;
  void mlp_forward(const LayerBuffers& b, bool keep) const;
  void mlp_backward(const LayerBuffers& b, const LayerGradients& gradients, const BackwardBuffers& g,
                    const ix_mat& out_grad, const ix_mat& normed_grad) const;
  void projection_backward(const Linear& linear, const LinearGradient& gradient, const ix_mat& grad, const ix_mat& in,
                           const ix_mat& in_grad, bool accumulate) const;
  ix_mat as_operand(const ix_mat& grad, const ix_mat& scratch) const;
  ix_attention attention_shape() const;

  Device& device_;
  const ModelSpec& spec_;
  DType dtype_;
  const LayerWeights& weights_;
};

// Rows [first, first + count) of a matrix.
inline ix_mat rows_of(const ix_mat& m, int64_t first, int64_t count) {
  ix_mat view = m;
  view.data =
      static_cast<char*>(m.data) + first * m.stride * static_cast<int64_t>(dtype_size(static_cast<DType>(m.dtype)));
  view.rows = count;
  return view;
}

}  // namespace implex
