// optimizer_step: PyTorch's AdamW, RMSprop and SGD over flat f32 arrays, in its order of operations.
// sum_of_squares: in double, blocks of fixed size, each block's sum a fixed tree.
//
// Elementwise. Floor of AdamW: 28 bytes a parameter over the memory's bandwidth.
#include <algorithm>
#include <cmath>

#include "device.h"
#include "gpu/reduce.cuh"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kSquareBlock = 16384;  // values of a partial sum

__global__ void __launch_bounds__(kThreads)
    adamw(int64_t count, float shrink, float step, float beta1, float beta2, float epsilon, float root_correction2,
          float scale, float* parameters, const float* gradients, float* first, float* second) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    const float g = gradients[i] * scale;
    float m = first[i];
    m = m + (g - m) * (1.0f - beta1);
    const float v = second[i] * beta2 + g * g * (1.0f - beta2);
    first[i] = m;
    second[i] = v;
    parameters[i] = parameters[i] * shrink - step * (m / (sqrtf(v) / root_correction2 + epsilon));
  }
}

__global__ void __launch_bounds__(kThreads)
    rmsprop(int64_t count, float learning_rate, float decay, float alpha, float epsilon, float momentum, float scale,
            float* parameters, const float* gradients, float* square, float* buffer) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    const float p = parameters[i];
    const float g = gradients[i] * scale + p * decay;
    const float v = square[i] * alpha + g * g * (1.0f - alpha);
    float update = g / (sqrtf(v) + epsilon);
    if (momentum > 0.0f) {
      update = buffer[i] * momentum + update;
      buffer[i] = update;
    }
    square[i] = v;
    parameters[i] = p - learning_rate * update;
  }
}

__global__ void __launch_bounds__(kThreads)
    sgd(int64_t count, float learning_rate, float decay, float momentum, int32_t first_step, float scale,
        float* parameters, const float* gradients, float* buffer) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    const float p = parameters[i];
    float g = gradients[i] * scale + p * decay;
    if (momentum > 0.0f) {
      if (first_step == 0) g = buffer[i] * momentum + g;
      buffer[i] = g;
    }
    parameters[i] = p - learning_rate * g;
  }
}

__global__ void __launch_bounds__(kThreads) square_blocks(const float* values, int64_t count, double* partials) {
  __shared__ double scratch[kThreads / kWarp];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSquareBlock;
  const int64_t last = first + kSquareBlock < count ? first + kSquareBlock : count;
  double sum = 0;
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) {
    const double x = static_cast<double>(values[i]);
    sum += x * x;
  }
  sum = block_sum<kThreads>(sum, scratch);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// A single block; the result takes the place after the last partial sum.
__global__ void __launch_bounds__(kThreads) sum_partials(double* partials, int64_t count) {
  __shared__ double scratch[kThreads / kWarp];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += partials[i];
  sum = block_sum<kThreads>(sum, scratch);
  if (threadIdx.x == 0) partials[count] = sum;
}

}  // namespace

int32_t optimizer_step(ix_device* device, const ix_optimizer* o, int64_t count, float* parameters,
                       const float* gradients, float* first, float* second, ix_status* status) {
  Call call(device, status, "optimizer_step", count);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  const unsigned blocks = std::min(blocks_of(count, kThreads), 16u * static_cast<unsigned>(device->processors));
  switch (o->kind) {
    case IX_ADAMW: {
      const double step = static_cast<double>(o->step);
      const float correction1 = static_cast<float>(1.0 - std::pow(static_cast<double>(o->beta1), step));
      const float root_correction2 = static_cast<float>(std::sqrt(1.0 - std::pow(static_cast<double>(o->beta2), step)));
      return call.launch(adamw, blocks, kThreads, 0, count, 1.0f - o->learning_rate * o->weight_decay,
                         o->learning_rate / correction1, o->beta1, o->beta2, o->epsilon, root_correction2,
                         o->gradient_scale, parameters, gradients, first, second);
    }
    case IX_RMSPROP:
      return call.launch(rmsprop, blocks, kThreads, 0, count, o->learning_rate, o->weight_decay, o->beta2, o->epsilon,
                         o->momentum, o->gradient_scale, parameters, gradients, first, second);
    case IX_SGD:
      return call.launch(sgd, blocks, kThreads, 0, count, o->learning_rate, o->weight_decay, o->momentum,
                         o->step <= 1 ? 1 : 0, o->gradient_scale, parameters, gradients, first);
    default:
      return call.fail(IX_INVALID, "unknown optimiser %d", o->kind);
  }
}

int32_t sum_of_squares(ix_device* device, const float* values, int64_t count, double* sum, ix_status* status) {
  *sum = 0;
  Call call(device, status, "sum_of_squares", count);
  int32_t code = call.begin();
  if (code != IX_OK || count == 0) return code;
  const int64_t blocks = (count + kSquareBlock - 1) / kSquareBlock;
  double* partials = nullptr;
  code = call.scratch(Workspace::kPartials, static_cast<size_t>(blocks + 1) * sizeof(double), &partials);
  if (code == IX_OK)
    code = call.launch(square_blocks, static_cast<unsigned>(blocks), kThreads, 0, values, count, partials);
  if (code == IX_OK) code = call.launch(sum_partials, 1, kThreads, 0, partials, blocks);
  return code != IX_OK ? code : download(device, sum, partials + blocks, sizeof *sum, status);
}

}  // namespace implex::cuda
