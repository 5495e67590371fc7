// The exports that run one operation: kernelGemm, kernelLinearLogprob, kernelLinearReward, and kernelBenchmark, which
// times one. lib/native/kernels.ts is their caller.
#pragma once

#include "addon/napi_setup.h"

namespace implex::addon {

void define_operations(Napi::Env env, Napi::Object exports);

}  // namespace implex::addon
