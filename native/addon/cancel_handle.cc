// NativeCancel. All of it runs on the JS thread; only the flags it sets are seen by the engine's.
#include "addon/cancel_handle.h"

#include <algorithm>

#include "addon/instance.h"

namespace implex::addon {

const napi_type_tag NativeCancel::kTag = {0x6f1c0f5f4c6e4d0bULL, 0x9a7e2d1fb3c84e57ULL};

Napi::Function NativeCancel::define(Napi::Env env) {
  return Handle::define(env, {method<cancel>(env, "cancel"), getter<cancelled>("cancelled")});
}

Napi::Object NativeCancel::create(Napi::Env env) {
  Instance& instance = Instance::of(env);
  return construct(env, instance.cancel_class, &instance);
}

NativeCancel::NativeCancel(const Napi::CallbackInfo& info) : Handle(info), host_(Instance::of(info.Env()).host) {}

void NativeCancel::attach(const std::shared_ptr<CancelFlag>& flag) {
  if (cancelled_) flag->cancel();
  if (flags_.size() >= prune_at_) {
    flags_.erase(std::remove_if(flags_.begin(), flags_.end(), [](const auto& known) { return known.expired(); }),
                 flags_.end());
    prune_at_ = std::max<size_t>(16, 2 * flags_.size());
  }
  flags_.push_back(flag);
}

Napi::Value NativeCancel::cancel(const Napi::CallbackInfo& info) {
  NativeCancel& self = receiver(info);
  if (self.cancelled_) return info.Env().Undefined();
  self.cancelled_ = true;
  for (const auto& known : self.flags_) {
    if (const auto flag = known.lock()) flag->cancel();
  }
  self.flags_.clear();
  self.host_->engine().drop_cancelled();
  return info.Env().Undefined();
}

Napi::Value NativeCancel::cancelled(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), receiver(info).cancelled_);
}

}  // namespace implex::addon
