// Activations and their slopes, as native/cpu/kernels computes them.
#pragma once

#include "backend.h"
#include "gpu/platform.cuh"

namespace implex::cuda {

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ inline float activate(float x, int32_t activation) {
  switch (activation) {
    case IX_ACT_SILU:
      return x * sigmoid(x);
    case IX_ACT_GELU:
      return 0.5f * x * erfcf(-x * 0.70710678118654752f);
    case IX_ACT_GELU_TANH:
      // 1 + tanh y = 2 / (1 + e^-2y)
      return x * sigmoid(2.0f * (0.79788456080286536f * (x + 0.044715f * x * x * x)));
    default:
      return x;
  }
}

// exp(-x²/2)/√(2π) is the normal density.
__device__ inline float activation_slope(float x, int32_t activation) {
  switch (activation) {
    case IX_ACT_SILU: {
      const float s = sigmoid(x);
      return s * (1.0f + x * (1.0f - s));
    }
    case IX_ACT_GELU:
      return 0.5f * erfcf(-x * 0.70710678118654752f) + x * expf(-0.5f * x * x) * 0.39894228040143268f;
    case IX_ACT_GELU_TANH: {
      const float s = sigmoid(2.0f * (0.79788456080286536f * (x + 0.044715f * x * x * x)));
      const float slope = 0.79788456080286536f * (1.0f + 0.134145f * x * x);
      return s + x * 2.0f * s * (1.0f - s) * slope;
    }
    default:
      return 1.0f;
  }
}

}  // namespace implex::cuda
