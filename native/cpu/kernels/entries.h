// Declarations of one instruction set's kernels; KernelTable (table.h) says what each does.
#pragma once

#include "cpu/kernels/table.h"

namespace implex::cpu::IMPLEX_KERNELS {

void pack_f32(const float* rows, int64_t row, int64_t count, int64_t depth, float* panels);
void pack_bf16(const float* rows, int64_t row, int64_t count, int64_t depth, uint16_t* panels);
void unpack_f32(const float* panels, int64_t row, int64_t depth, float* out);
void unpack_bf16(const uint16_t* panels, int64_t row, int64_t depth, float* out);
void tile_f32(const TileArgs* args);
void tile_bf16(const TileArgs* args);
void finish_row(const float* c, int64_t n, const float* bias, const float* residual, void* out, int32_t out_dtype);
void fold_logits(const float* c, int64_t n, float* maximum, float* sum);
void norm_row(const void* in, int32_t in_dtype, int64_t n, int32_t kind, const float* gamma, const float* beta,
              float eps, void* out, int32_t out_dtype);
void glu_row(const void* gate, const void* up, int32_t dtype, int64_t n, int32_t activation, void* out);
void rope_row(void* row, int32_t dtype, int32_t heads, int32_t head_dim, int32_t rotary_dim, const float* cosines,
              const float* sines, int32_t inverse);
float dot(const float* a, const float* b, int64_t n);
void convert_row(const void* in, int32_t in_dtype, int64_t n, void* out, int32_t out_dtype);
int64_t attention_scratch(int32_t head_dim, int32_t group);
void attention(const AttentionArgs* args);
void pack_depth(const void* in, int32_t in_dtype, int64_t in_stride, int64_t row, int64_t count, int64_t cols,
                int64_t depth, void* panels, int32_t dtype);
void transpose(const void* in, int32_t dtype, int64_t in_stride, int64_t rows, int64_t cols, void* out,
               int64_t out_stride);
void norm_backward_row(const void* in, int32_t in_dtype, int64_t n, int32_t kind, const float* gamma, float eps,
                       const void* grad, int32_t grad_dtype, void* in_grad, int32_t in_grad_dtype, int32_t accumulate,
                       float* gamma_grad, float* beta_grad);
void glu_backward_row(const void* gate, const void* up, const void* grad, int32_t dtype, int64_t n, int32_t activation,
                      void* gate_grad, void* up_grad);
int64_t attention_backward_scratch(int32_t head_dim, int32_t group);
void attention_backward(const AttentionBackwardArgs* args);
void logit_gradient_row(const float* c, int64_t n, float lse, float grad, int64_t target, void* out, int32_t out_dtype);
void add_scaled(const float* in, float scale, int64_t n, float* out);
void add_row(const void* in, int32_t dtype, int64_t n, float* out);
void adamw(int64_t n, float learning_rate, float decay, float beta1, float beta2, float epsilon, float correction1,
           float root_correction2, float scale, float* parameters, const float* gradients, float* first, float* second);
void rmsprop(int64_t n, float learning_rate, float decay, float alpha, float epsilon, float momentum, float scale,
             float* parameters, const float* gradients, float* square, float* buffer);
void sgd(int64_t n, float learning_rate, float decay, float momentum, int32_t first_step, float scale,
         float* parameters, const float* gradients, float* buffer);
double sum_of_squares(const float* values, int64_t n);
double multiply_add(int64_t rounds, int32_t dtype);

extern const KernelTable table;

}  // namespace implex::cpu::IMPLEX_KERNELS
