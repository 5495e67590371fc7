// One instruction set's kernel table.
#include "cpu/kernels/entries.h"
#include "cpu/kernels/simd.h"

#define IMPLEX_TEXT_OF(x) #x
#define IMPLEX_TEXT(x) IMPLEX_TEXT_OF(x)

namespace implex::cpu::IMPLEX_KERNELS {

const KernelTable table = {
    IMPLEX_TEXT(IMPLEX_KERNELS),
    kPanel,
    pack_f32,
    pack_bf16,
    unpack_f32,
    unpack_bf16,
    tile_f32,
    tile_bf16,
    finish_row,
    fold_logits,
    norm_row,
    glu_row,
    rope_row,
    dot,
    convert_row,
    attention_scratch,
    attention,
    pack_depth,
    transpose,
    norm_backward_row,
    glu_backward_row,
    attention_backward_scratch,
    attention_backward,
    logit_gradient_row,
    add_scaled,
    add_row,
    adamw,
    rmsprop,
    sgd,
    sum_of_squares,
    multiply_add,
};

}  // namespace implex::cpu::IMPLEX_KERNELS
