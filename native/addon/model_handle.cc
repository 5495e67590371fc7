// NativeModel's own members; the rest is ResourceHandle's.
#include "addon/model_handle.h"

#include <utility>

#include "addon/generate_job.h"
#include "addon/open_jobs.h"

namespace implex::addon {

namespace {

// Queued like a call of score(), so that calls made before it use the old head and calls made after it the new one.
class HeadJob : public Job {
 public:
  HeadJob(std::shared_ptr<LoadedModel> loaded, std::vector<float> weight) : weight_(std::move(weight)) {
    resource = std::move(loaded);
  }

  void execute() override {
    auto& loaded = static_cast<LoadedModel&>(*resource);
    loaded.head_failure.reset();
    try {
      loaded.model->set_head(weight_);
    } catch (...) {
      loaded.head_failure = current_failure();
    }
  }
  void settle(napi_env) override {}

 private:
  std::vector<float> weight_;
};

}  // namespace

const napi_type_tag NativeModel::kTag = {0xd1b0a96e7f3a4c2cULL, 0x8e55c6f0274b4d93ULL};

Napi::Function NativeModel::define(Napi::Env env) {
  return Handle::define(
      env, {method<score>(env, "score"), method<generate>(env, "generate"), method<set_head>(env, "setHead"),
            method<with_adapters>(env, "withAdapters"), method<dispose>(env, "dispose"), getter<disposed>("disposed"),
            getter<device>("device"), getter<kernels>("kernels"), getter<weight_bytes>("weightBytes"),
            getter<has_head>("hasHead"), getter<has_unembedding>("hasUnembedding")});
}

Napi::Value NativeModel::generate(const Napi::CallbackInfo& info) {
  NativeModel& self = receiver(info);
  GenerateRequest request = read_generate_request(info[0]);
  NativeCancel* cancel = cancel_argument(info[1]);
  return self.submit(info.Env(), std::make_unique<GenerateJob>(info.Env(), self.resource_, std::move(request)), cancel);
}

Napi::Value NativeModel::with_adapters(const Napi::CallbackInfo& info) {
  NativeModel& self = receiver(info);
  ModelSpec spec = read_spec(info[0]);
  NativeCancel* cancel = cancel_argument(info[1]);
  return self.submit(info.Env(), adapt_model_job(info.Env(), self.resource_, std::move(spec)), cancel);
}

Napi::Value NativeModel::set_head(const Napi::CallbackInfo& info) {
  NativeModel& self = receiver(info);
  std::vector<float> weight = read_float32_array("weight", info[0]);
  if (!self.resource_) throw to_js_error(info.Env(), disposed_failure());
  check_head("weight", weight, self.facts_.hidden_size, HeadRows::kAny, info.Env());
  self.host_->submit_quietly(info.Env(), std::make_unique<HeadJob>(self.resource_, std::move(weight)));
  self.facts_.has_head = true;
  return info.Env().Undefined();
}

Napi::Value NativeModel::has_head(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), receiver(info).facts_.has_head);
}

Napi::Value NativeModel::has_unembedding(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), receiver(info).facts_.has_unembedding);
}

}  // namespace implex::addon
