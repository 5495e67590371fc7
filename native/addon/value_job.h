// ValueJob: a job that is a function, whose promise is fulfilled with what it returns.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "addon/host.h"

namespace implex::addon {

template <typename Value>
class ValueJob : public PromiseJob {
 public:
  // Runs on the engine thread, and what it holds is freed there.
  using Work = std::function<Value(const CancelFlag&)>;
  // Makes the promise's value, on the JS thread.
  using Write = Napi::Value (*)(Napi::Env, const Value&);

  // out_of_memory: what to say when an allocation failed.
  ValueJob(Napi::Env env, Work work, Write write, std::string out_of_memory)
      : PromiseJob(env), work_(std::move(work)), write_(write), out_of_memory_(std::move(out_of_memory)) {}

  void execute() override {
    value_ = work_(*cancel);
    work_ = nullptr;
  }

 private:
  Napi::Value result(Napi::Env env) override { return write_(env, value_); }
  std::string out_of_memory() const override { return out_of_memory_; }

  Work work_;
  Write write_;
  std::string out_of_memory_;
  Value value_{};
};

}  // namespace implex::addon
