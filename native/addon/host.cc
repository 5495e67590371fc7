// The lifetime of the engine's thread-safe function. Four rules, each against a known crash or hang:
//  1. It is referenced only while jobs are pending: referenced for ever it keeps an idle process alive, never
//  referenced it lets Node exit
//     under a pending promise.
//  2. Our cleanup hook is added after the function is created. Hooks run last in, first out, so the engine thread is
//  joined while the
//     function is still whole; nothing calls into it once Node has begun to free it.
//  3. It is released from that hook, not from a destructor: destructors of an environment run only after the function's
//  own handle is
//     closed, which a worker would wait for.
//  4. The engine thread never waits for the JS thread (the queue is unbounded and the call does not block), so the join
//  cannot deadlock.
#include "addon/host.h"

#include <utility>

namespace implex::addon {

Napi::Error to_js_error(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.message.empty() ? "internal error" : failure.message);
  error.Set("code", Napi::String::New(env, error_code_name(failure.code)));
  const ErrorFields& fields = failure.fields;
  if (fields.pair) error.Set("pair", Napi::Number::New(env, static_cast<double>(*fields.pair)));
  if (fields.step) error.Set("step", Napi::Number::New(env, static_cast<double>(*fields.step)));
  if (!fields.parameter.empty()) error.Set("parameter", Napi::String::New(env, fields.parameter));
  if (!fields.tensor.empty()) error.Set("tensor", Napi::String::New(env, fields.tensor));
  return error;
}

void PromiseJob::settle(napi_env raw_env) {
  const Napi::Env env(raw_env);
  if (!failure) {
    try {
      deferred_.Resolve(result(env));
      return;
    } catch (const Napi::Error& error) {
      deferred_.Reject(error.Value());
      return;
    } catch (...) {
      failure = current_failure();
    }
  }
  if (failure->code == ErrorCode::kOutOfMemory && failure->message.empty()) failure->message = out_of_memory();
  deferred_.Reject(to_js_error(env, *failure).Value());
}

EngineHost::EngineHost() : engine_([this] { completions_.NonBlockingCall(); }) {}

void EngineHost::open(Napi::Env env) {
  if (opened_) return;
  completions_ = Completions::New(env, "implex:engine", 0, 1, this);
  completions_.Unref(env);
  if (napi_add_env_cleanup_hook(env, on_environment_cleanup, this) != napi_ok) {
    completions_.Release();
    throw Error(ErrorCode::kInternal, "the environment does not accept a cleanup hook");
  }
  opened_ = true;
}

void EngineHost::on_environment_cleanup(void* data) {
  auto* host = static_cast<EngineHost*>(data);
  host->engine_.stop();
  host->completions_.Release();
}

void EngineHost::enqueue(Napi::Env env, std::unique_ptr<Job>& job) {
  open(env);
  engine_.submit(job);
  if (pending_++ == 0) completions_.Ref(env);
}

Napi::Promise EngineHost::submit(Napi::Env env, std::unique_ptr<PromiseJob> promise_job) {
  const Napi::Promise promise = promise_job->promise();
  std::unique_ptr<Job> job = std::move(promise_job);
  try {
    job->cancel->check();
    enqueue(env, job);
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    job->failure = current_failure();
    job->settle(env);
  }
  return promise;
}

void EngineHost::submit_quietly(Napi::Env env, std::unique_ptr<Job> job) { enqueue(env, job); }

// `env` is null when Node empties the function's queue during teardown; the host may be gone by then.
void EngineHost::on_wake(Napi::Env env, Napi::Function, EngineHost* host, void*) {
  if (static_cast<napi_env>(env) != nullptr) host->settle_finished(env);
}

void EngineHost::settle_finished(Napi::Env env) {
  for (std::unique_ptr<Job>& job : engine_.take_finished()) {
    if (--pending_ == 0) completions_.Unref(env);
    const Napi::HandleScope scope(env);
    try {
      job->settle(env);
    } catch (...) {
      // The environment is terminating and takes no more JavaScript: there is nobody to tell. The other jobs still get
      // their turn.
    }
  }
}

}  // namespace implex::addon
