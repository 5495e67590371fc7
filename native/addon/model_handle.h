// NativeModel: JavaScript's handle of a loaded model.
#pragma once

#include "addon/resource_handle.h"

namespace implex::addon {

class NativeModel : public ResourceHandle<NativeModel, LoadedModel> {
 public:
  static constexpr char kName[] = "NativeModel";
  static const napi_type_tag kTag;

  static Napi::Function define(Napi::Env env);
  static const Napi::FunctionReference& constructor(Instance& instance) { return instance.model_class; }
  explicit NativeModel(const Napi::CallbackInfo& info) : ResourceHandle(info) {}

 private:
  friend class ResourceHandle<NativeModel, LoadedModel>;

  static Napi::Value generate(const Napi::CallbackInfo& info);
  static Napi::Value with_adapters(const Napi::CallbackInfo& info);
  static Napi::Value set_head(const Napi::CallbackInfo& info);
  static Napi::Value has_head(const Napi::CallbackInfo& info);
  static Napi::Value has_unembedding(const Napi::CallbackInfo& info);
};

}  // namespace implex::addon
