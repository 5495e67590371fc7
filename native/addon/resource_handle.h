// ResourceHandle<T, R>: the base of the handles of something loaded, an R (loaded.h). It holds the R until dispose() or
// collection, tells V8 of its memory, and queues jobs on it.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "addon/cancel_handle.h"
#include "addon/handle.h"
#include "addon/instance.h"
#include "addon/marshal.h"
#include "addon/score_job.h"

namespace implex::addon {

// T has, besides what Handle asks for, `static const Napi::FunctionReference& constructor(Instance&)`.
template <typename T, typename R>
class ResourceHandle : public Handle<T> {
 public:
  static Napi::Object create(Napi::Env env, std::shared_ptr<R> resource, const typename R::Facts& facts) {
    State state{std::move(resource), facts};
    return Handle<T>::construct(env, T::constructor(Instance::of(env)), &state);
  }

  // On collection and when the environment ends, possibly after its engine has stopped.
  void Finalize(Napi::BasicEnv env) override {
    report_freed(env);
    if (resource_) host_->engine().release(std::move(resource_));
  }

 protected:
  explicit ResourceHandle(const Napi::CallbackInfo& info) : Handle<T>(info), host_(Instance::of(info.Env()).host) {
    auto* state = static_cast<State*>(info[0].template As<Napi::External<void>>().Data());
    facts_ = state->facts;
    resource_ = std::move(state->resource);
    reported_bytes_ = static_cast<int64_t>(facts_.memory_bytes);
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), reported_bytes_);
  }

  static Failure disposed_failure() {
    return {ErrorCode::kDisposed, std::string("the ") + R::kNoun + " has been disposed"};
  }

  // Queues a job made of `resource_`. Call it after all arguments have been read: reading them may have run a getter
  // that disposed the handle.
  Napi::Promise submit(Napi::Env env, std::unique_ptr<PromiseJob> job, NativeCancel* cancel = nullptr) {
    if (cancel != nullptr) cancel->attach(job->cancel);
    if (!resource_) {
      job->failure = disposed_failure();
      job->settle(env);
      return job->promise();
    }
    return host_->submit(env, std::move(job));
  }

  static NativeCancel* cancel_argument(const Napi::Value& value) {
    return given(value) ? &NativeCancel::argument("cancel", value) : nullptr;
  }

  static Napi::Value score(const Napi::CallbackInfo& info) {
    T& self = Handle<T>::receiver(info);
    ScoreRequest request = read_request(info[0]);
    NativeCancel* cancel = cancel_argument(info[1]);
    return self.submit(info.Env(), std::make_unique<ScoreJob>(info.Env(), self.resource_, std::move(request)), cancel);
  }

  static Napi::Value dispose(const Napi::CallbackInfo& info) {
    T& self = Handle<T>::receiver(info);
    if (self.resource_) {
      self.host_->engine().dispose(std::move(self.resource_));
      self.report_freed(info.Env());
    }
    return info.Env().Undefined();
  }

  static Napi::Value disposed(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), Handle<T>::receiver(info).resource_ == nullptr);
  }
  static Napi::Value device(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), Handle<T>::receiver(info).facts_.device);
  }
  static Napi::Value kernels(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), Handle<T>::receiver(info).facts_.kernels);
  }
  static Napi::Value weight_bytes(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(Handle<T>::receiver(info).facts_.weight_bytes));
  }

  std::shared_ptr<EngineHost> host_;
  std::shared_ptr<R> resource_;  // null once disposed
  typename R::Facts facts_;

 private:
  struct State {
    std::shared_ptr<R> resource;
    const typename R::Facts& facts;
  };

  // Gives back what V8 was told of the memory, which it counts when it decides to collect garbage.
  void report_freed(Napi::BasicEnv env) {
    if (reported_bytes_ != 0) Napi::MemoryManagement::AdjustExternalMemory(env, -std::exchange(reported_bytes_, 0));
  }

  int64_t reported_bytes_ = 0;
};

}  // namespace implex::addon
