// NativeTrainer: JavaScript's handle of a model in training.
#pragma once

#include "addon/resource_handle.h"

namespace implex::addon {

class NativeTrainer : public ResourceHandle<NativeTrainer, LoadedTrainer> {
 public:
  static constexpr char kName[] = "NativeTrainer";
  static const napi_type_tag kTag;

  static Napi::Function define(Napi::Env env);
  static const Napi::FunctionReference& constructor(Instance& instance) { return instance.trainer_class; }
  explicit NativeTrainer(const Napi::CallbackInfo& info) : ResourceHandle(info) {}

 private:
  friend class ResourceHandle<NativeTrainer, LoadedTrainer>;

  static Napi::Value accumulate(const Napi::CallbackInfo& info);
  static Napi::Value step(const Napi::CallbackInfo& info);
  static Napi::Value zero_gradients(const Napi::CallbackInfo& info);
  static Napi::Value parameter(const Napi::CallbackInfo& info);
  static Napi::Value gradient(const Napi::CallbackInfo& info);
  static Napi::Value save_state(const Napi::CallbackInfo& info);
  static Napi::Value load_state(const Napi::CallbackInfo& info);
  static Napi::Value steps(const Napi::CallbackInfo& info);
  static Napi::Value memory(const Napi::CallbackInfo& info);
  static Napi::Value parameters(const Napi::CallbackInfo& info);
};

}  // namespace implex::addon
