// The addon's exports: info, probeDevice, openModel, openTrainer, trainMemory, meanRow, createCancel, lockFile, and
// those of operations.h. lib/native/binding.ts declares them; a test compares the two.
#include <utility>

#include "addon/arguments.h"
#include "addon/cancel_handle.h"
#include "addon/instance.h"
#include "addon/lock_file.h"
#include "addon/marshal.h"
#include "addon/marshal_train.h"
#include "addon/model_handle.h"
#include "addon/open_jobs.h"
#include "addon/operations.h"
#include "addon/trainer_handle.h"
#include "addon/value_job.h"
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

}  // namespace

Instance::Instance(Napi::Env env, Napi::Object exports) {
  cancel_class = Napi::Persistent(NativeCancel::define(env));
  model_class = Napi::Persistent(NativeModel::define(env));
  trainer_class = Napi::Persistent(NativeTrainer::define(env));
  DefineAddon(exports, {InstanceMethod("info", &Instance::info, napi_enumerable),
                        InstanceMethod("probeDevice", &Instance::probe_device, napi_enumerable),
                        InstanceMethod("openModel", &Instance::open_model, napi_enumerable),
                        InstanceMethod("openTrainer", &Instance::open_trainer, napi_enumerable),
                        InstanceMethod("trainMemory", &Instance::train_memory, napi_enumerable),
                        InstanceMethod("meanRow", &Instance::mean_row, napi_enumerable),
                        InstanceMethod("createCancel", &Instance::create_cancel, napi_enumerable)});
  exports.Set("lockFile", Napi::Function::New<lock_file>(env, "lockFile"));
  define_operations(env, exports);
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
  LoadOptions load = read_load_options(info[1]);
  return submit(info, info[2], open_model_job(info.Env(), std::move(spec), std::move(load)));
}

Napi::Value Instance::open_trainer(const Napi::CallbackInfo& info) {
  ModelSpec spec = read_spec(info[0]);
  LoadOptions load = read_load_options(info[1]);
  TrainOptions train = read_train_options(info[2], spec.hidden_size);
  return submit(info, info[3], open_trainer_job(info.Env(), std::move(spec), std::move(load), std::move(train)));
}

Napi::Value Instance::train_memory(const Napi::CallbackInfo& info) {
  const ModelSpec spec = read_spec(info[0]);
  const LoadOptions load = read_load_options(info[1]);
  const TrainOptions train = read_train_options(info[2], spec.hidden_size);
  try {
    return write_memory(info.Env(), least_memory(spec, load.dtype, train));
  } catch (const Error&) {
    throw to_js_error(info.Env(), current_failure());
  }
}

Napi::Value Instance::mean_row(const Napi::CallbackInfo& info) {
  WeightSource source = read_weight("source", info[0]);
  std::string out_of_memory = "out of memory reading tensor " + source.tensor;
  auto job = std::make_unique<ValueJob<std::vector<float>>>(
      info.Env(), [source = std::move(source)](const CancelFlag& cancel) { return implex::mean_row(source, cancel); },
      write_floats, std::move(out_of_memory));
  return submit(info, info[1], std::move(job));
}

Napi::Value Instance::submit(const Napi::CallbackInfo& info, const Napi::Value& cancel,
                             std::unique_ptr<PromiseJob> job) {
  if (given(cancel)) NativeCancel::argument("cancel", cancel).attach(job->cancel);
  return host->submit(info.Env(), std::move(job));
}

Napi::Value Instance::create_cancel(const Napi::CallbackInfo& info) { return NativeCancel::create(info.Env()); }

}  // namespace implex::addon

using implex::addon::Instance;
NODE_API_NAMED_ADDON(implex, Instance)
