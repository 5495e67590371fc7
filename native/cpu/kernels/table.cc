// One instruction set's kernel table.
#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

#define IMPLEX_TEXT_OF(x) #x
#define IMPLEX_TEXT(x) IMPLEX_TEXT_OF(x)

namespace implex::cpu::IMPLEX_KERNELS {

const KernelTable table = {
    .name = IMPLEX_TEXT(IMPLEX_KERNELS),
    .panel = kPanel,
    .pack_f32 = pack_f32,
    .pack_bf16 = pack_bf16,
    .unpack_f32 = unpack_f32,
    .unpack_bf16 = unpack_bf16,
    .tile_f32 = tile_f32,
    .tile_bf16 = tile_bf16,
    .finish_row = finish_row,
    .soft_cap_row = soft_cap_row,
    .fold_logits = fold_logits,
    .norm_row = norm_row,
    .glu_row = glu_row,
    .rope_row = rope_row,
    .dot = dot,
    .convert_row = convert_row,
    .attention_scratch = attention_scratch,
    .attention = attention,
    .pack_depth = pack_depth,
    .transpose = transpose,
    .norm_backward_row = norm_backward_row,
    .glu_backward_row = glu_backward_row,
    .attention_backward_scratch = attention_backward_scratch,
    .attention_backward = attention_backward,
    .logit_gradient_row = logit_gradient_row,
    .add_scaled = add_scaled,
    .add_row = add_row,
    .scaled_add_row = scaled_add_row,
    .adamw = adamw,
    .rmsprop = rmsprop,
    .sgd = sgd,
    .sum_of_squares = sum_of_squares,
    .multiply_add = multiply_add,
};

}  // namespace implex::cpu::IMPLEX_KERNELS
