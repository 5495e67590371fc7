// Where the intermediate results of a layer lie, and the part of their layout that passes share.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "core/arena.h"
#include "core/dtype.h"
#include "model/spec.h"

namespace implex {

// Rows of the MLP's inner activations that are worked on at once: they are by far the widest of a layer. Part of the
// numerical contract of training, where a weight's gradient is summed block by block.
constexpr int64_t kMlpRows = 512;

// Tokens of a mixture of experts that are worked on at once, so that an expert gets rows enough for a good product.
// Part of the numerical contract of training, as above.
constexpr int64_t kExpertTokens = 2048;

// A mixture of experts over n tokens, each of which has K rows, one for each expert it chose: in the order of the
// experts, and of the tokens for each of them. Counted within a block of kExpertTokens tokens.
struct ExpertBuffers {
  std::vector<int64_t>* load = nullptr;  // host, [X]: rows that each expert gets are added
  ix_mat router_in;                      // f32 [n, D]; mlp_normed itself if that is f32
  ix_mat logits;                         // f32 [n, X]
  int32_t* chosen = nullptr;             // [n, K]
  float* weights = nullptr;              // [n, K]
  int32_t* places = nullptr;             // [n, K]: the row of each choice
  int32_t* tokens = nullptr;             // [n*K]: the token of each row
  ix_mat in;                             // [kExpertTokens*K, D]
  ix_mat gate, up;                       // [n*K or kMlpRows, F]
  ix_mat hidden;                         // [kMlpRows, F]; may be gate
  ix_mat out;                            // f32 [n*K or kExpertTokens*K, D]
};

// Scratch of one projection's low-rank adapter; R is the largest rank.
struct AdapterBuffers {
  ix_mat scaled;         // f32 [n, R]
  ix_mat low;            // [n, R]
  float* sum = nullptr;  // f32: a projection's result before it is rounded
};

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
  // Only where a branch is not added to the stream as it is: f32, n rows at least, [.., D].
  ix_mat attention_branch, mlp_branch;  // what attention and MLP give, kept for the norm after each
  ix_mat branch_normed;                 // scratch; may be either
  ExpertBuffers experts;
  AdapterBuffers adapter;
};

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
  ix_mat branch;      // f32 [T or R, D]: gradient of a branch that is not added to the stream as it is
  // Experts, for one block of tokens.
  ix_mat expert_out;                // [kExpertTokens*K, D]
  ix_mat expert_in;                 // f32 [kExpertTokens*K, D]
  ix_mat router_logits;             // f32 [kExpertTokens, X]
  float* expert_weights = nullptr;  // [kExpertTokens, K]
};

// What layers must have room for: the most that any of them needs.
struct LayerWidths {
  int64_t dense = 0;                               // F of dense MLPs
  int64_t experts = 0, per_token = 0, expert = 0;  // X, K and F of mixtures of experts
  bool qk_norm = false, post_norm = false, branch = false /* not added to the stream as it is */;
};
LayerWidths widths_of(const ModelSpec& spec, const LayerSpec& layer);
LayerWidths widest(const ModelSpec& spec);

// Scratch that all layers of a pass over n rows share.
struct SharedBuffers {
  ix_mat hidden;     // [kMlpRows, the widest F]
  ix_mat branch;     // f32 [n, D]
  ix_mat expert_in;  // [kExpertTokens*K, D]
  AdapterBuffers adapter;
};
SharedBuffers place_shared(Arena::Plan& plan, const ModelSpec& spec, DType dtype, int64_t rows);

// Places what a layer that computes n rows needs of gate, up, hidden, branches and experts. The rest of `b` is placed.
void place_mlp(Arena::Plan& plan, const ModelSpec& spec, const LayerWidths& widths, DType dtype, int64_t rows,
               bool training, const SharedBuffers& shared, LayerBuffers& b);

// Buffers placed for the widest layer, seen with one layer's own widths.
LayerBuffers fitted(const LayerBuffers& b, const LayerSpec& layer);
void place_backward(Arena::Plan& plan, const ModelSpec& spec, DType dtype, int64_t rows, BackwardBuffers& g);
BackwardBuffers fitted(const BackwardBuffers& g, const LayerSpec& layer);

// Rows [first, first + count) of a matrix.
inline ix_mat rows_of(const ix_mat& m, int64_t first, int64_t count) {
  ix_mat view = m;
  view.data =
      static_cast<char*>(m.data) + first * m.stride * static_cast<int64_t>(dtype_size(static_cast<DType>(m.dtype)));
  view.rows = count;
  return view;
}

// The same memory, seen as fewer rows or columns.
inline ix_mat with_shape(const ix_mat& m, int64_t rows, int64_t cols) { return {m.data, m.dtype, rows, cols, cols}; }

}  // namespace implex
