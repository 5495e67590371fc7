// NativeCancel: JavaScript's end of an abort. One may be given to several calls.
#pragma once

#include <memory>
#include <vector>

#include "addon/handle.h"
#include "addon/host.h"
#include "core/cancel.h"

namespace implex::addon {

class NativeCancel : public Handle<NativeCancel> {
 public:
  static constexpr char kName[] = "NativeCancel";
  static const napi_type_tag kTag;

  static Napi::Function define(Napi::Env env);
  static Napi::Object create(Napi::Env env);
  explicit NativeCancel(const Napi::CallbackInfo& info);

  // From now on cancel() also sets this flag. Each job has a flag of its own, because a model's dispose() cancels only
  // its own jobs.
  void attach(const std::shared_ptr<CancelFlag>& flag);

 private:
  static Napi::Value cancel(const Napi::CallbackInfo& info);
  static Napi::Value cancelled(const Napi::CallbackInfo& info);

  std::shared_ptr<EngineHost> host_;
  bool cancelled_ = false;
  std::vector<std::weak_ptr<CancelFlag>> flags_;
  size_t prune_at_ = 16;  // a signal that outlives a million calls must not remember them
};

}  // namespace implex::addon
