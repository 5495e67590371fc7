// Declarations of one instruction set's kernels. KernelTable (table.h) has their signatures and says what each does.
#pragma once

#include "cpu/kernels/table.h"

namespace implex::cpu::IMPLEX_KERNELS {

Kernel<&KernelTable::pack_f32> pack_f32;
Kernel<&KernelTable::pack_bf16> pack_bf16;
Kernel<&KernelTable::unpack_f32> unpack_f32;
Kernel<&KernelTable::unpack_bf16> unpack_bf16;
Kernel<&KernelTable::tile_f32> tile_f32;
Kernel<&KernelTable::tile_bf16> tile_bf16;
Kernel<&KernelTable::finish_row> finish_row;
Kernel<&KernelTable::soft_cap_row> soft_cap_row;
Kernel<&KernelTable::fold_logits> fold_logits;
Kernel<&KernelTable::norm_row> norm_row;
Kernel<&KernelTable::glu_row> glu_row;
Kernel<&KernelTable::rope_row> rope_row;
Kernel<&KernelTable::dot> dot;
Kernel<&KernelTable::convert_row> convert_row;
Kernel<&KernelTable::attention_scratch> attention_scratch;
Kernel<&KernelTable::attention> attention;
Kernel<&KernelTable::pack_depth> pack_depth;
Kernel<&KernelTable::transpose> transpose;
Kernel<&KernelTable::norm_backward_row> norm_backward_row;
Kernel<&KernelTable::glu_backward_row> glu_backward_row;
Kernel<&KernelTable::attention_backward_scratch> attention_backward_scratch;
Kernel<&KernelTable::attention_backward> attention_backward;
Kernel<&KernelTable::logit_gradient_row> logit_gradient_row;
Kernel<&KernelTable::add_scaled> add_scaled;
Kernel<&KernelTable::add_row> add_row;
Kernel<&KernelTable::scaled_add_row> scaled_add_row;
Kernel<&KernelTable::adamw> adamw;
Kernel<&KernelTable::rmsprop> rmsprop;
Kernel<&KernelTable::sgd> sgd;
Kernel<&KernelTable::sum_of_squares> sum_of_squares;
Kernel<&KernelTable::multiply_add> multiply_add;

extern const KernelTable table;

}  // namespace implex::cpu::IMPLEX_KERNELS
