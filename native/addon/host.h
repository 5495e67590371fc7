// EngineHost: ties one Engine to one Node-API environment. Owns the thread-safe function through which finished jobs
// come back, keeps the process alive while promises are pending and lets it end when none are, and shuts the engine
// down with the environment. Everything here happens on the JS thread, except Engine's `wake`.
#pragma once

#include <memory>

#include "addon/engine.h"
#include "addon/napi_setup.h"

namespace implex::addon {

// A job with a promise. The deferred is touched only in the constructor and in settle(); a job that outlives its
// environment is destroyed without it being touched (the promise died with the environment).
class PromiseJob : public Job {
 public:
  explicit PromiseJob(Napi::Env env) : deferred_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }
  void settle(napi_env env) final;

 protected:
  // The value of the promise. May throw.
  virtual Napi::Value result(Napi::Env env) = 0;
  // What to say when an allocation failed.
  virtual std::string out_of_memory() const = 0;

 private:
  Napi::Promise::Deferred deferred_;
};

class EngineHost {
 public:
  EngineHost();
  EngineHost(const EngineHost&) = delete;
  EngineHost& operator=(const EngineHost&) = delete;

  // Queues the job and returns its promise, which is already rejected when the job cannot be queued or is cancelled.
  Napi::Promise submit(Napi::Env env, std::unique_ptr<PromiseJob> job);
  // Queues a job that has no promise. Throws what Engine::submit() throws.
  void submit_quietly(Napi::Env env, std::unique_ptr<Job> job);

  Engine& engine() { return engine_; }

 private:
  static void on_wake(Napi::Env env, Napi::Function, EngineHost* host, void*);
  static void on_environment_cleanup(void* host);
  using Completions = Napi::TypedThreadSafeFunction<EngineHost, void, on_wake>;

  void open(Napi::Env env);
  void enqueue(Napi::Env env, std::unique_ptr<Job>& job);
  void settle_finished(Napi::Env env);

  Completions completions_;
  bool opened_ = false;
  uint64_t pending_ = 0;  // jobs submitted and not yet settled
  Engine engine_;
};

// An Error with `.code` and the fields that are known, as lib/native/handles.ts expects it.
Napi::Error to_js_error(Napi::Env env, const Failure& failure);

}  // namespace implex::addon
