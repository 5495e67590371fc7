// The jobs that load: their promises are fulfilled with a NativeModel or a NativeTrainer.
#pragma once

#include <memory>

#include "addon/host.h"
#include "train/trainer.h"

namespace implex::addon {

std::unique_ptr<PromiseJob> open_model_job(Napi::Env env, ModelSpec spec, LoadOptions load);
std::unique_ptr<PromiseJob> open_trainer_job(Napi::Env env, ModelSpec spec, LoadOptions load, TrainOptions train);

}  // namespace implex::addon
