// The addon's exports: info, probeDevice, openModel, createCancel. lib/native/binding.ts declares them; a test compares
// the two.
#include <utility>

#include "addon/arguments.h"
#include "addon/cancel_handle.h"
#include "addon/instance.h"
#include "addon/marshal.h"
#include "addon/model_handle.h"
#include "core/system.h"

#ifndef IMPLEX_VERSION
#error "the build must define IMPLEX_VERSION, the version in package.json"
#endif
#ifndef IMPLEX_BUILDER
#error "the build must define IMPLEX_BUILDER, \"node-gyp\" or \"cmake\""
#endif

namespace implex::addon {

namespace {

#if defined(__clang__)
constexpr char kCompiler[] = "clang " __clang_version__;
#elif defined(__GNUC__)
constexpr char kCompiler[] = "gcc " __VERSION__;
#else
constexpr char kCompiler[] = "unknown";
#endif

class OpenJob : public PromiseJob {
 public:
  OpenJob(Napi::Env env, ModelSpec spec, LoadOptions options)
      : PromiseJob(env), spec_(std::move(spec)), options_(std::move(options)) {}

  void execute() override {
    auto loaded = std::make_shared<LoadedModel>();
    loaded->model = std::make_unique<RewardModel>(open_device(options_), spec_, options_.dtype, nullptr, *cancel);
    facts_.device = loaded->model->device_name();
    facts_.kernels = loaded->model->kernels_name();
    facts_.weight_bytes = loaded->model->weight_bytes();
    facts_.hidden_size = spec_.hidden_size;
    facts_.has_head = loaded->model->has_head();
    facts_.has_unembedding = loaded->model->has_unembedding();
    loaded_ = std::move(loaded);
  }

 private:
  Napi::Value result(Napi::Env env) override { return NativeModel::create(env, std::move(loaded_), facts_); }
  std::string out_of_memory() const override {
    uint64_t bytes = 0;
    for (const WeightSource& weight : spec_.weights) bytes += weight.bytes;
    return "out of memory while loading the model, whose files hold " + std::to_string(bytes >> 20) + " MiB of weights";
  }

  ModelSpec spec_;
  LoadOptions options_;
  std::shared_ptr<LoadedModel> loaded_;
  ModelFacts facts_;
};

}  // namespace

Instance::Instance(Napi::Env env, Napi::Object exports) {
  cancel_class = Napi::Persistent(NativeCancel::define(env));
  model_class = Napi::Persistent(NativeModel::define(env));
  DefineAddon(exports, {InstanceMethod("info", &Instance::info, napi_enumerable),
                        InstanceMethod("probeDevice", &Instance::probe_device, napi_enumerable),
                        InstanceMethod("openModel", &Instance::open_model, napi_enumerable),
                        InstanceMethod("createCancel", &Instance::create_cancel, napi_enumerable)});
}

Napi::Value Instance::info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const SystemInfo system = system_info();
  Napi::Array available = Napi::Array::New(env);
  for (size_t i = 0; i < system.available.size(); ++i) available.Set(static_cast<uint32_t>(i), system.available[i]);
  Napi::Object cpu = Napi::Object::New(env);
  cpu.Set("name", system.cpu_name);
  cpu.Set("kernels", system.kernels);
  cpu.Set("available", available);

  Napi::Object result = Napi::Object::New(env);
  result.Set("version", IMPLEX_VERSION);
  result.Set("builder", IMPLEX_BUILDER);
  result.Set("compiler", kCompiler);
  result.Set("napi", NAPI_VERSION);
  result.Set("cpu", cpu);
  result.Set("threads", system.threads);
  return result;
}

Napi::Value Instance::probe_device(const Napi::CallbackInfo& info) {
  const DeviceProbe probe = implex::probe_device(read_path("modulePath", info[0]));
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("ok", probe.ok);
  if (!probe.reason.empty()) result.Set("reason", probe.reason);
  if (!probe.description.empty()) result.Set("description", probe.description);
  return result;
}

Napi::Value Instance::open_model(const Napi::CallbackInfo& info) {
  ModelSpec spec = read_spec(info[0]);
  LoadOptions options = read_load_options(info[1]);
  NativeCancel* cancel = given(info[2]) ? &NativeCancel::argument("cancel", info[2]) : nullptr;
  auto job = std::make_unique<OpenJob>(info.Env(), std::move(spec), std::move(options));
  if (cancel != nullptr) cancel->attach(job->cancel);
  return host->submit(info.Env(), std::move(job));
}

Napi::Value Instance::create_cancel(const Napi::CallbackInfo& info) { return NativeCancel::create(info.Env()); }

}  // namespace implex::addon

using implex::addon::Instance;
NODE_API_NAMED_ADDON(implex, Instance)
