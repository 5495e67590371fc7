// NativeModel and the jobs it queues.
#include "addon/model_handle.h"

#include <cmath>
#include <utility>

#include "addon/cancel_handle.h"
#include "addon/instance.h"
#include "addon/marshal.h"

namespace implex::addon {

namespace {

class ScoreJob : public PromiseJob {
 public:
  ScoreJob(Napi::Env env, std::shared_ptr<LoadedModel> loaded, ScoreRequest request)
      : PromiseJob(env), request_(std::move(request)) {
    model = std::move(loaded);
    tokens_ = request_.tokens.size();
    token_logprobs_ = request_.token_logprobs;
  }

  void execute() override {
    const bool needs_head = request_.readout == Readout::kRewardLast || request_.readout == Readout::kRewardMean;
    if (needs_head && model->head_failure) {
      throw Error(model->head_failure->code, "the head could not be set: " + model->head_failure->message);
    }
    result_ = model->model->score(request_, *cancel);
    request_ = {};
  }

 private:
  Napi::Value result(Napi::Env env) override { return write_result(env, result_, token_logprobs_); }
  std::string out_of_memory() const override {
    return "out of memory while scoring a batch of " + std::to_string(tokens_) + " tokens; use a smaller batch";
  }

  ScoreRequest request_;
  ScoreResult result_;
  size_t tokens_ = 0;
  bool token_logprobs_ = false;
};

// Queued like a call of score(), so that calls made before it use the old head and calls made after it the new one.
class HeadJob : public Job {
 public:
  HeadJob(std::shared_ptr<LoadedModel> loaded, std::vector<float> weight) : weight_(std::move(weight)) {
    model = std::move(loaded);
  }

  void execute() override {
    model->head_failure.reset();
    try {
      model->model->set_head(weight_);
    } catch (...) {
      model->head_failure = current_failure();
    }
  }
  void settle(napi_env) override {}

 private:
  std::vector<float> weight_;
};

}  // namespace

const napi_type_tag NativeModel::kTag = {0xd1b0a96e7f3a4c2cULL, 0x8e55c6f0274b4d93ULL};

struct NativeModel::State {
  std::shared_ptr<LoadedModel> model;
  const ModelFacts& facts;
};

Napi::Function NativeModel::define(Napi::Env env) {
  return Handle::define(env, {method<score>(env, "score"), method<set_head>(env, "setHead"),
                              method<dispose>(env, "dispose"), getter<disposed>("disposed"), getter<device>("device"),
                              getter<kernels>("kernels"), getter<weight_bytes>("weightBytes"),
                              getter<has_head>("hasHead"), getter<has_unembedding>("hasUnembedding")});
}

Napi::Object NativeModel::create(Napi::Env env, std::shared_ptr<LoadedModel> model, const ModelFacts& facts) {
  State state{std::move(model), facts};
  return construct(env, Instance::of(env).model_class, &state);
}

NativeModel::NativeModel(const Napi::CallbackInfo& info) : Handle(info), host_(Instance::of(info.Env()).host) {
  auto* state = static_cast<State*>(info[0].As<Napi::External<void>>().Data());
  facts_ = state->facts;
  model_ = std::move(state->model);
  reported_bytes_ = static_cast<int64_t>(facts_.weight_bytes);
  Napi::MemoryManagement::AdjustExternalMemory(info.Env(), reported_bytes_);
}

// On collection and when the environment ends, possibly after its engine has stopped.
void NativeModel::Finalize(Napi::BasicEnv env) {
  report_freed(env);
  if (model_) host_->engine().release(std::move(model_));
}

void NativeModel::report_freed(Napi::BasicEnv env) {
  if (reported_bytes_ != 0) Napi::MemoryManagement::AdjustExternalMemory(env, -std::exchange(reported_bytes_, 0));
}

Napi::Value NativeModel::score(const Napi::CallbackInfo& info) {
  NativeModel& self = receiver(info);
  ScoreRequest request = read_request(info[0]);
  NativeCancel* cancel = given(info[1]) ? &NativeCancel::argument("cancel", info[1]) : nullptr;
  // Looked at last: reading the batch may have run a getter that disposed the model.
  auto job = std::make_unique<ScoreJob>(info.Env(), self.model_, std::move(request));
  if (cancel != nullptr) cancel->attach(job->cancel);
  if (!self.model_) {
    job->failure = Failure{ErrorCode::kDisposed, "the model has been disposed"};
    job->settle(info.Env());
    return job->promise();
  }
  return self.host_->submit(info.Env(), std::move(job));
}

Napi::Value NativeModel::set_head(const Napi::CallbackInfo& info) {
  NativeModel& self = receiver(info);
  std::vector<float> weight = read_float32_array("weight", info[0]);
  if (!self.model_) throw to_js_error(info.Env(), {ErrorCode::kDisposed, "the model has been disposed"});
  if (static_cast<int64_t>(weight.size()) != self.facts_.hidden_size) {
    throw_out_of_range("weight", "of the model's hidden size, " + std::to_string(self.facts_.hidden_size) + " elements",
                       Napi::Number::New(info.Env(), static_cast<double>(weight.size())));
  }
  for (size_t i = 0; i < weight.size(); ++i) {
    if (!std::isfinite(weight[i])) {
      throw to_js_error(info.Env(),
                        {ErrorCode::kWeightNotFinite, "element " + std::to_string(i) + " of the head is not finite"});
    }
  }
  self.host_->submit_quietly(info.Env(), std::make_unique<HeadJob>(self.model_, std::move(weight)));
  self.facts_.has_head = true;
  return info.Env().Undefined();
}

Napi::Value NativeModel::dispose(const Napi::CallbackInfo& info) {
  NativeModel& self = receiver(info);
  if (self.model_) {
    self.host_->engine().dispose(std::move(self.model_));
    self.report_freed(info.Env());
  }
  return info.Env().Undefined();
}

Napi::Value NativeModel::disposed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), receiver(info).model_ == nullptr);
}

Napi::Value NativeModel::device(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), receiver(info).facts_.device);
}

Napi::Value NativeModel::kernels(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), receiver(info).facts_.kernels);
}

Napi::Value NativeModel::weight_bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(receiver(info).facts_.weight_bytes));
}

Napi::Value NativeModel::has_head(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), receiver(info).facts_.has_head);
}

Napi::Value NativeModel::has_unembedding(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), receiver(info).facts_.has_unembedding);
}

}  // namespace implex::addon
