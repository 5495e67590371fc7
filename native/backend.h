/* The table of operations that a compute device implements. The transformer and the read-outs are written once against
 * it.
 *
 * A C interface, so that a device can live in a shared library built by another compiler and be loaded on demand: the
 * library exports `implex_backend`, which returns a table whose `version` and `size` the loader checks before it
 * touches anything else.
 *
 * Conventions
 *  - Every function returns IX_OK or an error code and then fills `status`; none exits, aborts or throws across the
 * boundary.
 *  - `data` pointers inside ix_mat, and every const int32_t or const float pointer argument named "device" below, are
 * device memory from `alloc`.
 *  - Matrices are row-major with a row stride in elements. Activations are f32 or bf16; every accumulation, softmax,
 * norm and reduction is f32 or wider.
 *  - Batch-invariant: a row of any output has the same bits whatever the other rows are, however many there are, and on
 * however many threads. Attention works on key blocks aligned to the position in the sequence, so that splitting a
 * sequence into a prompt segment and a response segment changes no bit.
 *  - Operations on one device are ordered as they are called. `download` and `synchronize` wait; the others may return
 * early.
 *  - Shapes: T tokens of the batch, N rows, D hidden, V vocabulary, H query heads, G key/value heads, E head size, F
 * intermediate, X experts of which a token uses K.
 */
#ifndef IMPLEX_BACKEND_H
#define IMPLEX_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IMPLEX_BACKEND_VERSION 4u
#define IMPLEX_BACKEND_SYMBOL "implex_backend"

enum { IX_OK = 0, IX_INVALID = 1, IX_OUT_OF_MEMORY = 2, IX_UNAVAILABLE = 3, IX_INTERNAL = 4 };
enum { IX_F32 = 0, IX_BF16 = 1, IX_I32 = 3 };
enum { IX_NORM_RMS = 0, IX_NORM_LAYER = 1 };
enum { IX_ACT_NONE = 0, IX_ACT_SILU = 1, IX_ACT_GELU = 2, IX_ACT_GELU_TANH = 3 };

typedef struct ix_status {
  int32_t code;
  char message[508]; /* a sentence: the operation, its shape, what went wrong */
} ix_status;

typedef struct ix_device ix_device; /* one opened device and its queue of work */
typedef struct ix_weight ix_weight; /* a matrix [rows, cols] in the layout that the device's products want */
typedef struct ix_batch ix_batch;   /* the shape of one ragged batch, on the device */

typedef struct ix_mat {
  void* data;
  int32_t dtype;
  int64_t rows, cols, stride;
} ix_mat;

typedef struct ix_segment {
  int32_t start, length, parent; /* parent: -1, or an earlier segment without a parent */
} ix_segment;

typedef struct ix_norm {
  int32_t kind;       /* IX_NORM_* */
  const float* gamma; /* device [D] */
  const float* beta;  /* device [D] or NULL */
  float eps;
} ix_norm;

typedef struct ix_epilogue {
  const float* bias;      /* device [N cols] or NULL */
  const ix_mat* residual; /* f32, added last; NULL for none; may be the output itself */
} ix_epilogue;

typedef struct ix_rope {
  const float* cosines; /* device [max_positions, rotary_dim / 2] */
  const float* sines;
  int32_t heads, head_dim,
      rotary_dim;  /* rotate-half pairs (i, i + rotary_dim / 2) of each head's first rotary_dim values */
  int32_t inverse; /* 1: by the negative angle, which is also the backward pass */
} ix_rope;

typedef struct ix_attention {
  int32_t heads, kv_heads, head_dim;
  float scale;
  int32_t window; /* a token sees itself and the window - 1 positions before it, its parent's included; 0: all */
  float soft_cap; /* a score s becomes soft_cap * tanh(s / soft_cap), after the scale; 0: none */
} ix_attention;

/* PyTorch's update rules, f32. `step` counts from 1. */
enum { IX_ADAMW = 0, IX_RMSPROP = 1, IX_SGD = 2 };
typedef struct ix_optimizer {
  int32_t kind;
  float learning_rate, weight_decay, epsilon;
  float beta1, beta2;   /* adamw; rmsprop: beta2 is its smoothing constant alpha */
  float momentum;       /* rmsprop, sgd */
  float gradient_scale; /* multiplies every gradient first: clipping */
  int64_t step;
} ix_optimizer;

typedef struct ix_backend {
  uint32_t version; /* IMPLEX_BACKEND_VERSION */
  uint32_t size;    /* sizeof(ix_backend) */
  const char* name; /* "cpu", "cuda" */

  /* -- device
   * ------------------------------------------------------------------------------------------------------------------
   */
  int32_t (*open)(ix_device** device, ix_status* status);
  void (*close)(ix_device* device);
  /* Two short strings: what the device is, and which kernels run. Bits may differ between kernel names. */
  int32_t (*describe)(ix_device* device, char* description, size_t description_size, char* kernels, size_t kernels_size,
                      ix_status* status);
  int32_t (*alloc)(ix_device* device, size_t bytes, void** memory, ix_status* status); /* aligned to 256 bytes */
  void (*release)(ix_device* device, void* memory);
  int32_t (*upload)(ix_device* device, void* to, const void* from_host, size_t bytes, ix_status* status);
  int32_t (*download)(ix_device* device, void* to_host, const void* from, size_t bytes, ix_status* status);
  int32_t (*synchronize)(ix_device* device, ix_status* status);

  /* -- weights
   * -----------------------------------------------------------------------------------------------------------------
   */
  /* trainable: gemm_backward_input and linear_logprob_backward will be asked of it. */
  int32_t (*weight_create)(ix_device* device, int32_t dtype, int64_t rows, int64_t cols, int32_t trainable,
                           ix_weight** weight, ix_status* status);
  /* Rows [row, row + count) from host f32 [count, cols], rounded to the weight's dtype. */
  int32_t (*weight_write)(ix_device* device, ix_weight* weight, int64_t row, int64_t count, const float* from_host,
                          ix_status* status);
  /* All rows from device f32 [rows, cols]. */
  int32_t (*weight_refresh)(ix_device* device, ix_weight* weight, const float* from, ix_status* status);
  void (*weight_destroy)(ix_device* device, ix_weight* weight);
  size_t (*weight_bytes)(const ix_weight* weight);

  /* -- batch
   * -------------------------------------------------------------------------------------------------------------------
   */
  /* segments: host [count], in order and without gaps over the batch's tokens. */
  int32_t (*batch_create)(ix_device* device, const ix_segment* segments, int32_t count, ix_batch** batch,
                          ix_status* status);
  void (*batch_destroy)(ix_device* device, ix_batch* batch);

  /* -- recording: operations that a device may do as one piece of work. Between the two calls only operations are asked
   * for, none of which gives the host a result. The device may keep them back until record_end, and does them in their
   * order with the same bits, or it ignores both calls. Asked for anything else meanwhile, it first does what it has
   * kept back, and until the next record_begin keeps nothing. Any of these calls may report what an earlier operation
   * of the recording ran into. ---------- */
  int32_t (*record_begin)(ix_device* device, ix_status* status);
  /* Ends the recording, whatever it returns. keep 0: operations that were kept back are dropped. */
  int32_t (*record_end)(ix_device* device, int32_t keep, ix_status* status);

  /* -- operations. `rows` (device int32 [N], or NULL for all T in order) names the token that each row of a matrix
   * belongs to. ---- */
  int32_t (*embedding)(ix_device* device, const ix_weight* table, const int32_t* ids /* device [N] */,
                       const ix_mat* out /* [N, D] */, ix_status* status);
  int32_t (*gather_rows)(ix_device* device, const ix_mat* in, const int32_t* rows, const ix_mat* out,
                         ix_status* status);
  int32_t (*norm)(ix_device* device, const ix_norm* norm, const ix_mat* in, const ix_mat* out /* may be in */,
                  ix_status* status);
  /* out[M, N] = in[M, K] · weight[N, K]^T + bias + residual; in has the weight's dtype. */
  int32_t (*gemm)(ix_device* device, const ix_mat* in, const ix_weight* weight, const ix_epilogue* epilogue,
                  const ix_mat* out, ix_status* status);
  int32_t (*rope)(ix_device* device, const ix_batch* batch, const ix_rope* rope, const int32_t* rows,
                  const ix_mat* in_out, ix_status* status);
  /* q, out: [N, H*E]; k, v: [T, G*E]. A token attends to all of its segment's parent and causally to its own segment,
   * as far as its window reaches. */
  int32_t (*attention)(ix_device* device, const ix_batch* batch, const ix_attention* attention, const ix_mat* q,
                       const int32_t* rows, const ix_mat* k, const ix_mat* v, const ix_mat* out,
                       float* lse /* device [N, H] or NULL: ln sum exp of each row's scores */, ix_status* status);
  /* out = act(gate) * up, or act(gate) where up is NULL; out may be either. */
  int32_t (*glu)(ix_device* device, int32_t activation, const ix_mat* gate, const ix_mat* up, const ix_mat* out,
                 ix_status* status);
  /* logp[i] = ln softmax(hidden[i] · weight^T)[targets[i]]. No [N, V] array: logits stay in f32 tiles and are reduced
   * at once. */
  int32_t (*linear_logprob)(ix_device* device, const ix_mat* hidden /* [N, D] */, const ix_weight* weight /* [V, D] */,
                            const int32_t* targets /* device [N] */,
                            float soft_cap /* a logit z becomes soft_cap * tanh(z / soft_cap); 0: none */,
                            float* logp /* device [N] */,
                            float* lse /* device [N] or NULL: ln sum exp of each row's logits */, ix_status* status);
  /* reward[k] = mean over rows i of [first[k], first[k] + count[k]) of head · norm(in[i]); first, count: host [groups].
   */
  int32_t (*linear_reward)(ix_device* device, const ix_norm* norm, const ix_mat* in, const float* head /* device [D] */,
                           const int32_t* first, const int32_t* count, int32_t groups,
                           float* reward /* device [groups] */, ix_status* status);
  /* out = scale * in + residual. residual: f32 or NULL; in and out: any dtype. out may be in or residual. */
  int32_t (*scaled_add)(ix_device* device, const ix_mat* in, float scale, const ix_mat* residual, const ix_mat* out,
                        ix_status* status);
  /* The `count` largest of each row's softmax(logits), largest first, of equals the one with the lower index first.
   * normalize: divided by their sum. */
  int32_t (*top_experts)(ix_device* device, const ix_mat* logits /* f32 [N, X] */, int32_t count /* K */,
                         int32_t normalize, int32_t* experts /* device [N, K] */, float* weights /* device [N, K] */,
                         ix_status* status);
  /* out[n] = residual[n] + sum over k ascending of weights[n, k] * in[places[n, k]]. */
  int32_t (*combine_experts)(ix_device* device, const ix_mat* in /* f32 [N*K, D] */,
                             const int32_t* places /* device [N, K] */, const float* weights /* device [N, K] */,
                             int32_t count /* K */, const ix_mat* residual /* f32 [N, D] or NULL; may be out */,
                             const ix_mat* out /* f32 [N, D] */, ix_status* status);

  /* -- backward. Gradients of parameters are f32 and are added to; a NULL one is not wanted. Sums over rows run in a
   * fixed order. ---- */
  /* out[M, K] = grad[M, N] · weight[N, K] + residual. */
  int32_t (*gemm_backward_input)(ix_device* device, const ix_mat* grad, const ix_weight* weight, const ix_mat* residual,
                                 const ix_mat* out, ix_status* status);
  /* weight_grad[N, K] += grad[M, N]^T · in[M, K]; bias_grad[N] += column sums of grad. */
  int32_t (*gemm_backward_weight)(ix_device* device, const ix_mat* grad, const ix_mat* in, float* weight_grad,
                                  float* bias_grad, ix_status* status);
  /* in_grad = (accumulate ? in_grad : 0) + gradient with respect to `in`. */
  int32_t (*norm_backward)(ix_device* device, const ix_norm* norm, const ix_mat* in, const ix_mat* grad,
                           const ix_mat* in_grad, int32_t accumulate, float* gamma_grad, float* beta_grad,
                           ix_status* status);
  int32_t (*glu_backward)(ix_device* device, int32_t activation, const ix_mat* gate, const ix_mat* up,
                          const ix_mat* grad, const ix_mat* gate_grad, const ix_mat* up_grad, ix_status* status);
  /* out, lse: of the forward pass. k_grad, v_grad [T, G*E] and q_grad [N, H*E] are overwritten. */
  int32_t (*attention_backward)(ix_device* device, const ix_batch* batch, const ix_attention* attention,
                                const ix_mat* q, const int32_t* rows, const ix_mat* k, const ix_mat* v,
                                const ix_mat* out, const float* lse, const ix_mat* grad, const ix_mat* q_grad,
                                const ix_mat* k_grad, const ix_mat* v_grad, ix_status* status);
  /* grad[ids[i]] += in[i], in the order of i. grad: f32 [V, D]. */
  int32_t (*embedding_backward)(ix_device* device, const int32_t* ids, const ix_mat* in, float* grad,
                                int64_t vocabulary, ix_status* status);
  /* out[rows[i]] = (accumulate ? out[rows[i]] : 0) + in[i], repeated rows in the order of i; with accumulate 0 other
   * rows become 0. f32. */
  int32_t (*scatter_rows)(ix_device* device, const ix_mat* in, const int32_t* rows, const ix_mat* out,
                          int32_t accumulate, ix_status* status);
  /* hidden_grad f32 [N, D] (overwritten) and weight_grad for loss gradients `grad` (device [N]) of logp. Logits are
   * recomputed by chunks. */
  int32_t (*linear_logprob_backward)(ix_device* device, const ix_mat* hidden, const ix_weight* weight,
                                     const int32_t* targets, float soft_cap, const float* lse, const float* grad,
                                     const ix_mat* hidden_grad, float* weight_grad, ix_status* status);
  /* row_grad: device [N], the loss gradient of head · norm(in[i]). in_grad f32 is overwritten. */
  int32_t (*linear_reward_backward)(ix_device* device, const ix_norm* norm, const ix_mat* in, const float* head,
                                    const float* row_grad, const ix_mat* in_grad, float* gamma_grad, float* beta_grad,
                                    float* head_grad, ix_status* status);
  /* logits_grad f32 [N, X] is overwritten: the gradient by way of the chosen experts' weights; the choice has none. */
  int32_t (*top_experts_backward)(ix_device* device, const ix_mat* logits, int32_t count, int32_t normalize,
                                  const int32_t* experts, const float* weights_grad /* device [N, K] */,
                                  const ix_mat* logits_grad, ix_status* status);
  /* in_grad[places[n, k]] = weights[n, k] * grad[n]; weights_grad[n, k] = grad[n] · in[places[n, k]]. in, grad: f32;
   * in_grad: any dtype. */
  int32_t (*combine_experts_backward)(ix_device* device, const ix_mat* grad /* [N, D] */,
                                      const ix_mat* in /* [N*K, D] */, const int32_t* places, const float* weights,
                                      int32_t count, const ix_mat* in_grad /* [N*K, D] */,
                                      float* weights_grad /* device [N, K] */, ix_status* status);
  int32_t (*cast)(ix_device* device, const ix_mat* in, const ix_mat* out, ix_status* status);
  int32_t (*fill_zero)(ix_device* device, void* memory, size_t bytes, ix_status* status);

  /* -- optimiser: over flat f32 arrays. first, second: moments (sgd: momentum buffer and NULL).
   * ---------------------------------- */
  int32_t (*optimizer_step)(ix_device* device, const ix_optimizer* optimizer, int64_t count, float* parameters,
                            const float* gradients, float* first, float* second, ix_status* status);
  /* Host double: sum of squares; not finite when any value is not. */
  int32_t (*sum_of_squares)(ix_device* device, const float* values, int64_t count, double* sum, ix_status* status);
} ix_backend;

/* The module's only export. */
typedef const ix_backend* (*ix_backend_entry)(void);

#ifdef __cplusplus
}
#endif
#endif
