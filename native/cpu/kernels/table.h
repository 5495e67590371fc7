// KernelTable: the CPU's inner loops, compiled once per instruction set from the same sources and chosen at run time.
//
// A kernel works on one tile or on a few rows; splitting work over threads is the caller's (native/cpu/*.cc). Kernel
// sources are compiled with instructions that this processor may lack, so they use no inline function of any shared
// header: a linker keeps one copy of such a function for the whole program, and it could be the copy that faults.
#pragma once

#include <stdint.h>

#include "core/entry_type.h"

namespace implex::cpu {

// A product's tile: c[m, n] = sum over k of a[m, k] * w[n, k], k ascending, one accumulator per element. The same
// instructions run for every row whatever m is, hence batch invariance.
struct TileArgs {
  const void* a;       // row-major [m, depth], f32 or bf16
  int64_t a_stride;    // elements
  const void* panels;  // packed weight: panel after panel of `panel` columns, each [depth] (f32) or [depth/2 pairs]
                       // (bf16), zero-padded
  int64_t depth;
  int64_t m;
  int64_t panel_count;
  float* c;             // [m, panel_count * panel], contiguous rows
  int64_t panel_depth;  // depth of a whole panel, when only `depth` of it from `panels` on is summed; else equal to
                        // depth. bf16: even offsets
};

struct AttentionArgs {
  const void* q;  // [rows, heads * head_dim] rows of this block; f32 or bf16
  int64_t q_stride;
  int32_t dtype;
  const int32_t* positions;  // of the block's rows in their sequence, ascending
  int32_t rows;
  const void* k;  // all tokens
  const void* v;
  int64_t kv_stride;
  int64_t parent_start;  // token index of the parent's first token
  int64_t parent_length;
  int64_t own_start;
  int32_t head_dim;
  int32_t group;     // query heads that share this key/value head
  int32_t q_offset;  // first query head's offset in a row of q and out, in elements
  int32_t kv_offset;
  float scale;
  int32_t window;  // as in ix_attention
  float soft_cap;
  void* out;
  int64_t out_stride;
  float* lse;          // [rows, lse_stride] ln sum exp of the scaled scores, one per query head, or null
  int64_t lse_stride;  // query heads of the model
  int32_t head;        // first query head
  float* scratch;      // attention_scratch(head_dim, group) floats, aligned to 64 bytes
};

// One block of query rows of the backward pass; adds into the f32 key and value gradients of the whole batch.
struct AttentionBackwardArgs {
  AttentionArgs forward;  // as then: out and lse hold its results
  const void* grad;       // of out; same layout and dtype as out
  void* q_grad;           // same layout and dtype as q
  float* k_grad;          // [T, kv_grad_stride]
  float* v_grad;
  int64_t kv_grad_stride;
};

struct KernelTable {
  const char* name;
  int32_t panel;  // columns of a packed panel
  // Packs rows [row, row + count) of a weight given as f32 into `panels`.
  void (*pack_f32)(const float* rows, int64_t row, int64_t count, int64_t depth, float* panels);
  void (*pack_bf16)(const float* rows, int64_t row, int64_t count, int64_t depth, uint16_t* panels);
  void (*unpack_f32)(const float* panels, int64_t row, int64_t depth, float* out);
  void (*unpack_bf16)(const uint16_t* panels, int64_t row, int64_t depth, float* out);
  void (*tile_f32)(const TileArgs* args);
  void (*tile_bf16)(const TileArgs* args);
  // Row of a finished tile -> output: bias, residual, rounding. Any pointer but c and out may be null.
  void (*finish_row)(const float* c, int64_t n, const float* bias, const float* residual, void* out, int32_t out_dtype);
  void (*soft_cap_row)(float* c, int64_t n, float cap);  // in place; see ix_backend::linear_logprob
  // One tile's columns folded into a row's running maximum and sum of exponentials.
  void (*fold_logits)(const float* c, int64_t n, float* maximum, float* sum);
  void (*norm_row)(const void* in, int32_t in_dtype, int64_t n, int32_t kind, const float* gamma, const float* beta,
                   float eps, void* out, int32_t out_dtype);
  void (*glu_row)(const void* gate, const void* up, int32_t dtype, int64_t n, int32_t activation, void* out);
  void (*rope_row)(void* row, int32_t dtype, int32_t heads, int32_t head_dim, int32_t rotary_dim, const float* cosines,
                   const float* sines, int32_t inverse);
  float (*dot)(const float* a, const float* b, int64_t n);
  void (*convert_row)(const void* in, int32_t in_dtype, int64_t n, void* out, int32_t out_dtype);
  int64_t (*attention_scratch)(int32_t head_dim, int32_t group);
  void (*attention)(const AttentionArgs* args);

  // Backward.
  // Rows [row, row + count) of in [depth, cols] as the depth of panels over its columns: the other operand of a
  // transposed product.
  void (*pack_depth)(const void* in, int32_t in_dtype, int64_t in_stride, int64_t row, int64_t count, int64_t cols,
                     int64_t depth, void* panels, int32_t dtype);
  void (*transpose)(const void* in, int32_t dtype, int64_t in_stride, int64_t rows, int64_t cols, void* out,
                    int64_t out_stride);
  // gamma_grad and beta_grad (may be null) are added to.
  void (*norm_backward_row)(const void* in, int32_t in_dtype, int64_t n, int32_t kind, const float* gamma, float eps,
                            const void* grad, int32_t grad_dtype, void* in_grad, int32_t in_grad_dtype,
                            int32_t accumulate, float* gamma_grad, float* beta_grad);
  void (*glu_backward_row)(const void* gate, const void* up, const void* grad, int32_t dtype, int64_t n,
                           int32_t activation, void* gate_grad, void* up_grad);
  int64_t (*attention_backward_scratch)(int32_t head_dim, int32_t group);
  void (*attention_backward)(const AttentionBackwardArgs* args);
  // Row of logits -> loss gradient of the logits: grad * (1[i = target] - exp(c[i] - lse)), and with a soft cap, which
  // c has been through, times its slope.
  void (*logit_gradient_row)(const float* c, int64_t n, float soft_cap, float lse, float grad, int64_t target,
                             void* out, int32_t out_dtype);
  void (*add_scaled)(const float* in, float scale, int64_t n, float* out);  // out += scale * in
  void (*add_row)(const void* in, int32_t dtype, int64_t n, float* out);    // out += in
  // out = scale * in + residual (or 0 where null).
  void (*scaled_add_row)(const void* in, int32_t in_dtype, float scale, const float* residual, int64_t n, void* out,
                         int32_t out_dtype);

  // Optimisers.
  void (*adamw)(int64_t n, float learning_rate, float decay, float beta1, float beta2, float epsilon, float correction1,
                float root_correction2, float scale, float* parameters, const float* gradients, float* first,
                float* second);
  void (*rmsprop)(int64_t n, float learning_rate, float decay, float alpha, float epsilon, float momentum, float scale,
                  float* parameters, const float* gradients, float* square, float* buffer);
  void (*sgd)(int64_t n, float learning_rate, float decay, float momentum, int32_t first_step, float scale,
              float* parameters, const float* gradients, float* buffer);
  double (*sum_of_squares)(const float* values, int64_t n);

  // For benchmarks: `rounds` of multiply-adds in registers; returns how many operations that was.
  double (*multiply_add)(int64_t rounds, int32_t dtype);
};

// The type of a kernel, by its entry in the table.
template <auto entry>
using Kernel = EntryType<entry>;

constexpr int32_t kKeyBlock = 64;    // keys per block of attention, aligned to the position in the sequence
constexpr int32_t kQueryBlock = 32;  // most query rows of one attention block

}  // namespace implex::cpu
