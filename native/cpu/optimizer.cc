// Optimiser steps and the gradient's norm over flat arrays.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "cpu/device.h"

namespace implex::cpu {

namespace {

constexpr int64_t kBlock = 16384;

}  // namespace

int32_t optimizer_step(ix_device* device, const ix_optimizer* o, int64_t count, float* parameters,
                       const float* gradients, float* first, float* second, ix_status* status) {
  if (o->kind != IX_ADAMW && o->kind != IX_RMSPROP && o->kind != IX_SGD)
    return fail(status, IX_INVALID, "unknown optimiser %d", o->kind);
  const double step = static_cast<double>(o->step);
  const float correction1 = static_cast<float>(1.0 - std::pow(static_cast<double>(o->beta1), step));
  const float root_correction2 = static_cast<float>(std::sqrt(1.0 - std::pow(static_cast<double>(o->beta2), step)));
  for_each_task((count + kBlock - 1) / kBlock, 4.0 * static_cast<double>(count), [&](int64_t task) {
    const int64_t at = task * kBlock;
    const int64_t n = std::min(kBlock, count - at);
    const KernelTable& k = *device->kernels;
    switch (o->kind) {
      case IX_ADAMW:
        k.adamw(n, o->learning_rate, o->weight_decay, o->beta1, o->beta2, o->epsilon, correction1, root_correction2,
                o->gradient_scale, parameters + at, gradients + at, first + at, second + at);
        break;
      case IX_RMSPROP:
        k.rmsprop(n, o->learning_rate, o->weight_decay, o->beta2, o->epsilon, o->momentum, o->gradient_scale,
                  parameters + at, gradients + at, first + at, second ? second + at : nullptr);
        break;
      default:
        k.sgd(n, o->learning_rate, o->weight_decay, o->momentum, o->step <= 1 ? 1 : 0, o->gradient_scale,
              parameters + at, gradients + at, first ? first + at : nullptr);
    }
  });
  return IX_OK;
}

int32_t sum_of_squares(ix_device* device, const float* values, int64_t count, double* sum, ix_status* status) {
  std::vector<double> partials;
  try {
    partials.resize(static_cast<size_t>((count + kBlock - 1) / kBlock));
  } catch (const std::bad_alloc&) {
    return fail(status, IX_OUT_OF_MEMORY, "sum_of_squares: out of memory");
  }
  for_each_task(static_cast<int64_t>(partials.size()), static_cast<double>(count) / 4, [&](int64_t task) {
    partials[static_cast<size_t>(task)] =
        device->kernels->sum_of_squares(values + task * kBlock, std::min(kBlock, count - task * kBlock));
  });
  *sum = 0;
  for (const double partial : partials) *sum += partial;
  return IX_OK;
}

}  // namespace implex::cpu
