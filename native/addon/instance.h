// Instance: what one environment's copy of the addon owns. There are no JavaScript values in static storage: the same
// library serves the main thread and every worker_thread at once.
#pragma once

#include <memory>

#include "addon/host.h"
#include "addon/napi_setup.h"

namespace implex::addon {

class Instance : public Napi::Addon<Instance> {
 public:
  Instance(Napi::Env env, Napi::Object exports);

  static Instance& of(Napi::Env env) { return *env.GetInstanceData<Instance>(); }

  const std::shared_ptr<EngineHost> host = std::make_shared<EngineHost>();
  Napi::FunctionReference cancel_class;
  Napi::FunctionReference model_class;
  Napi::FunctionReference trainer_class;

 private:
  Napi::Value info(const Napi::CallbackInfo& info);
  Napi::Value probe_device(const Napi::CallbackInfo& info);
  Napi::Value open_model(const Napi::CallbackInfo& info);
  Napi::Value open_trainer(const Napi::CallbackInfo& info);
  Napi::Value submit(const Napi::CallbackInfo& info, const Napi::Value& cancel, std::unique_ptr<PromiseJob> job);
  Napi::Value train_memory(const Napi::CallbackInfo& info);
  Napi::Value mean_row(const Napi::CallbackInfo& info);
  Napi::Value create_cancel(const Napi::CallbackInfo& info);
};

}  // namespace implex::addon
