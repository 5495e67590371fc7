// Shared by the backward passes of a linear layer and of the fused head: sums of outer products over the rows of a
// batch.
#pragma once

#include "cpu/device.h"

namespace implex::cpu {

// A matrix [rows, cols] packed with its rows as depth, so that it can serve several products.
struct PackedRows {
  int64_t cols = 0;
  const char* panels = nullptr;  // in the device's workspace: until the next pack_rows
};

int32_t pack_rows(ix_device* device, const ix_mat* in, PackedRows* packed, ix_status* status);

// weight_grad f32 [grad cols, in cols] += gradᵀ · in.
int32_t add_weight_gradient(ix_device* device, const ix_mat* grad, const PackedRows& in, float* weight_grad,
                            ix_status* status);

}  // namespace implex::cpu
