// The jobs that load: their promises are fulfilled with a NativeModel or a NativeTrainer.
#pragma once

#include <memory>

#include "addon/host.h"
#include "addon/loaded.h"
#include "train/trainer.h"

namespace implex::addon {

std::unique_ptr<PromiseJob> open_model_job(Napi::Env env, ModelSpec spec, LoadOptions load);
// A model with the adapters of `spec` that shares the weights of `base`.
std::unique_ptr<PromiseJob> adapt_model_job(Napi::Env env, std::shared_ptr<LoadedModel> base, ModelSpec spec);
std::unique_ptr<PromiseJob> open_trainer_job(Napi::Env env, ModelSpec spec, LoadOptions load, TrainOptions train);

}  // namespace implex::addon
