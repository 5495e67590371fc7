// NativeModel: JavaScript's handle of a loaded model.
#pragma once

#include <memory>
#include <string>

#include "addon/engine.h"
#include "addon/handle.h"
#include "addon/host.h"

namespace implex::addon {

// Read once, on the engine thread, so that getters never ask a model that may be at work.
struct ModelFacts {
  std::string device;
  std::string kernels;
  size_t weight_bytes = 0;
  int64_t hidden_size = 0;
  bool has_head = false;
  bool has_unembedding = false;
};

class NativeModel : public Handle<NativeModel> {
 public:
  static constexpr char kName[] = "NativeModel";
  static const napi_type_tag kTag;

  static Napi::Function define(Napi::Env env);
  static Napi::Object create(Napi::Env env, std::shared_ptr<LoadedModel> model, const ModelFacts& facts);
  explicit NativeModel(const Napi::CallbackInfo& info);
  void Finalize(Napi::BasicEnv env) override;

 private:
  struct State;

  static Napi::Value score(const Napi::CallbackInfo& info);
  static Napi::Value set_head(const Napi::CallbackInfo& info);
  static Napi::Value dispose(const Napi::CallbackInfo& info);
  static Napi::Value disposed(const Napi::CallbackInfo& info);
  static Napi::Value device(const Napi::CallbackInfo& info);
  static Napi::Value kernels(const Napi::CallbackInfo& info);
  static Napi::Value weight_bytes(const Napi::CallbackInfo& info);
  static Napi::Value has_head(const Napi::CallbackInfo& info);
  static Napi::Value has_unembedding(const Napi::CallbackInfo& info);

  // Gives back what V8 was told of the weights' memory, which it counts when it decides to collect garbage.
  void report_freed(Napi::BasicEnv env);

  std::shared_ptr<EngineHost> host_;
  std::shared_ptr<LoadedModel> model_;  // null once disposed
  ModelFacts facts_;
  int64_t reported_bytes_ = 0;
};

}  // namespace implex::addon
