// NativeTrainer's own members; the rest is ResourceHandle's.
#include "addon/trainer_handle.h"

#include <functional>
#include <limits>
#include <utility>
#include <variant>

#include "addon/marshal_train.h"

namespace implex::addon {

namespace {

// A call of the trainer: `work` runs on the engine thread, `write` makes the promise's value of what it returns.
template <typename Value>
class TrainerJob : public PromiseJob {
 public:
  using Work = std::function<Value(Trainer&, const CancelFlag&)>;
  using Write = Napi::Value (*)(Napi::Env, const Value&);

  TrainerJob(Napi::Env env, std::shared_ptr<LoadedTrainer> loaded, std::string doing, Work work, Write write)
      : PromiseJob(env), doing_(std::move(doing)), work_(std::move(work)), write_(write) {
    resource = std::move(loaded);
  }

  void execute() override {
    value_ = work_(*static_cast<LoadedTrainer&>(*resource).trainer, *cancel);
    work_ = nullptr;
  }

 private:
  Napi::Value result(Napi::Env env) override { return write_(env, value_); }
  std::string out_of_memory() const override { return "out of memory while " + doing_; }

  std::string doing_;
  Work work_;
  Write write_;
  Value value_{};
};

using Nothing = std::monostate;

Napi::Value write_nothing(Napi::Env env, const Nothing&) { return env.Undefined(); }
Napi::Value write_number(Napi::Env env, const double& value) { return Napi::Number::New(env, value); }

}  // namespace

const napi_type_tag NativeTrainer::kTag = {0x3c8d5e0b91f74a66ULL, 0xa417d2c96b0e4f38ULL};

Napi::Function NativeTrainer::define(Napi::Env env) {
  return Handle::define(
      env,
      {method<accumulate>(env, "accumulate"), method<step>(env, "step"), method<zero_gradients>(env, "zeroGradients"),
       method<parameter>(env, "parameter"), method<gradient>(env, "gradient"), method<save_state>(env, "saveState"),
       method<load_state>(env, "loadState"), method<steps>(env, "steps"), method<score>(env, "score"),
       method<memory>(env, "memory"), method<dispose>(env, "dispose"), getter<parameters>("parameters"),
       getter<disposed>("disposed"), getter<device>("device"), getter<kernels>("kernels"),
       getter<weight_bytes>("weightBytes")});
}

Napi::Value NativeTrainer::accumulate(const Napi::CallbackInfo& info) {
  NativeTrainer& self = receiver(info);
  TrainBatch batch = read_train_batch(info[0]);
  NativeCancel* cancel = cancel_argument(info[1]);
  std::string doing = "training on a micro-batch of " + std::to_string(batch.request.tokens.size()) +
                      " tokens; use smaller micro-batches, or recompute activations";
  auto work = [batch = std::move(batch)](Trainer& trainer, const CancelFlag& flag) {
    return trainer.accumulate(batch.request, batch.gradients, flag);
  };
  return self.submit(info.Env(),
                     std::make_unique<TrainerJob<TrainResult>>(info.Env(), self.resource_, std::move(doing),
                                                               std::move(work), write_train_result),
                     cancel);
}

Napi::Value NativeTrainer::step(const Napi::CallbackInfo& info) {
  NativeTrainer& self = receiver(info);
  const Fields options("options", info[0]);
  const double learning_rate = options.number("learningRate", 0, kMostFloat);
  const double max_norm = options.number("maxNorm", 0, kMostFloat);
  auto work = [=](Trainer& trainer, const CancelFlag&) { return trainer.step(learning_rate, max_norm); };
  return self.submit(info.Env(), std::make_unique<TrainerJob<double>>(info.Env(), self.resource_, "taking a step",
                                                                      std::move(work), write_number));
}

Napi::Value NativeTrainer::zero_gradients(const Napi::CallbackInfo& info) {
  NativeTrainer& self = receiver(info);
  auto work = [](Trainer& trainer, const CancelFlag&) {
    trainer.zero_gradients();
    return Nothing{};
  };
  return self.submit(info.Env(), std::make_unique<TrainerJob<Nothing>>(info.Env(), self.resource_, "zeroing gradients",
                                                                       std::move(work), write_nothing));
}

Napi::Value NativeTrainer::parameter(const Napi::CallbackInfo& info) {
  NativeTrainer& self = receiver(info);
  std::string role = read_string("role", info[0]);
  std::string doing = "reading the parameter " + role;
  auto work = [role = std::move(role)](Trainer& trainer, const CancelFlag&) { return trainer.parameter(role); };
  return self.submit(info.Env(), std::make_unique<TrainerJob<std::vector<float>>>(
                                     info.Env(), self.resource_, std::move(doing), std::move(work), write_floats));
}

Napi::Value NativeTrainer::gradient(const Napi::CallbackInfo& info) {
  NativeTrainer& self = receiver(info);
  std::string role = read_string("role", info[0]);
  std::string doing = "reading the gradient of " + role;
  auto work = [role = std::move(role)](Trainer& trainer, const CancelFlag&) { return trainer.gradient(role); };
  return self.submit(info.Env(), std::make_unique<TrainerJob<std::vector<float>>>(
                                     info.Env(), self.resource_, std::move(doing), std::move(work), write_floats));
}

Napi::Value NativeTrainer::save_state(const Napi::CallbackInfo& info) {
  NativeTrainer& self = receiver(info);
  std::string path = read_path("path", info[0]);
  std::string doing = "writing " + path;
  auto work = [path = std::move(path)](Trainer& trainer, const CancelFlag&) {
    trainer.save_state(path);
    return Nothing{};
  };
  return self.submit(info.Env(), std::make_unique<TrainerJob<Nothing>>(info.Env(), self.resource_, std::move(doing),
                                                                       std::move(work), write_nothing));
}

Napi::Value NativeTrainer::load_state(const Napi::CallbackInfo& info) {
  NativeTrainer& self = receiver(info);
  std::string path = read_path("path", info[0]);
  std::string doing = "reading " + path;
  auto work = [path = std::move(path)](Trainer& trainer, const CancelFlag&) {
    trainer.load_state(path);
    return Nothing{};
  };
  return self.submit(info.Env(), std::make_unique<TrainerJob<Nothing>>(info.Env(), self.resource_, std::move(doing),
                                                                       std::move(work), write_nothing));
}

Napi::Value NativeTrainer::steps(const Napi::CallbackInfo& info) {
  NativeTrainer& self = receiver(info);
  auto work = [](Trainer& trainer, const CancelFlag&) { return static_cast<double>(trainer.steps()); };
  return self.submit(info.Env(), std::make_unique<TrainerJob<double>>(info.Env(), self.resource_, "counting steps",
                                                                      std::move(work), write_number));
}

// The one call that asks the trainer itself on the JS thread: it reads nothing but sizes, which never change.
Napi::Value NativeTrainer::memory(const Napi::CallbackInfo& info) {
  const NativeTrainer& self = receiver(info);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() / 2;  // tokens of a batch
  const int64_t tokens = read_integer("tokens", info[0], 1, kMost);
  const int64_t rows = read_integer("rows", info[1], 1, kMost);
  if (!self.resource_) throw to_js_error(info.Env(), disposed_failure());
  return write_memory(info.Env(), self.resource_->trainer->memory(tokens, rows));
}

Napi::Value NativeTrainer::parameters(const Napi::CallbackInfo& info) {
  return write_parameters(info.Env(), receiver(info).facts_.parameters);
}

}  // namespace implex::addon
