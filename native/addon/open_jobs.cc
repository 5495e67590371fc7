// Loading on the engine thread.
#include "addon/open_jobs.h"

#include <utility>

#include "addon/model_handle.h"
#include "addon/trainer_handle.h"

namespace implex::addon {

namespace {

template <typename NativeHandle, typename Loaded>
class OpenJob : public PromiseJob {
 public:
  OpenJob(Napi::Env env, ModelSpec spec, LoadOptions load)
      : PromiseJob(env), spec_(std::move(spec)), load_(std::move(load)) {}

 protected:
  // `model` is the one inside of `loaded`.
  void done(std::shared_ptr<Loaded> loaded, RewardModel& model, size_t memory_bytes) {
    facts_.device = model.device_name();
    facts_.kernels = model.kernel_set();
    facts_.weight_bytes = model.weight_bytes();
    facts_.memory_bytes = memory_bytes;
    facts_.hidden_size = spec_.hidden_size;
    loaded_ = std::move(loaded);
  }

  ModelSpec spec_;
  LoadOptions load_;
  typename Loaded::Facts facts_;

 private:
  Napi::Value result(Napi::Env env) override { return NativeHandle::create(env, std::move(loaded_), facts_); }
  std::string out_of_memory() const override {
    uint64_t bytes = 0;
    for (const WeightSource& weight : spec_.weights) bytes += weight.bytes;
    return std::string("out of memory while loading the ") + Loaded::kNoun + ", whose files hold " +
           std::to_string(bytes >> 20) + " MiB of weights";
  }

  std::shared_ptr<Loaded> loaded_;
};

class OpenModelJob : public OpenJob<NativeModel, LoadedModel> {
 public:
  using OpenJob::OpenJob;

  void execute() override {
    auto loaded = std::make_shared<LoadedModel>();
    loaded->model = std::make_unique<RewardModel>(open_device(load_), spec_, load_.dtype, nullptr, *cancel);
    RewardModel& model = *loaded->model;
    facts_.has_head = model.has_head();
    facts_.has_unembedding = model.has_unembedding();
    done(std::move(loaded), model, model.weight_bytes());
  }
};

class AdaptModelJob : public OpenJob<NativeModel, LoadedModel> {
 public:
  AdaptModelJob(Napi::Env env, std::shared_ptr<LoadedModel> base, ModelSpec spec) : OpenJob(env, std::move(spec), {}) {
    resource = std::move(base);
  }

  void execute() override {
    auto loaded = std::make_shared<LoadedModel>();
    const RewardModel& base = *static_cast<LoadedModel&>(*resource).model;
    loaded->model = std::make_unique<RewardModel>(base, spec_, *cancel);
    RewardModel& model = *loaded->model;
    facts_.has_head = model.has_head();
    facts_.has_unembedding = model.has_unembedding();
    done(std::move(loaded), model, model.weight_bytes());
  }
};

class OpenTrainerJob : public OpenJob<NativeTrainer, LoadedTrainer> {
 public:
  OpenTrainerJob(Napi::Env env, ModelSpec spec, LoadOptions load, TrainOptions train)
      : OpenJob(env, std::move(spec), std::move(load)), train_(std::move(train)) {}

  void execute() override {
    auto loaded = std::make_shared<LoadedTrainer>();
    loaded->trainer = std::make_unique<Trainer>(spec_, load_, train_, *cancel);
    Trainer& trainer = *loaded->trainer;
    facts_.parameters = trainer.parameters().entries();
    const TrainMemory memory = trainer.memory(1, 1);
    done(std::move(loaded), trainer.model(), memory.weights + memory.parameters + memory.moments);
  }

 private:
  TrainOptions train_;
};

}  // namespace

std::unique_ptr<PromiseJob> open_model_job(Napi::Env env, ModelSpec spec, LoadOptions load) {
  return std::make_unique<OpenModelJob>(env, std::move(spec), std::move(load));
}

std::unique_ptr<PromiseJob> adapt_model_job(Napi::Env env, std::shared_ptr<LoadedModel> base, ModelSpec spec) {
  return std::make_unique<AdaptModelJob>(env, std::move(base), std::move(spec));
}

std::unique_ptr<PromiseJob> open_trainer_job(Napi::Env env, ModelSpec spec, LoadOptions load, TrainOptions train) {
  return std::make_unique<OpenTrainerJob>(env, std::move(spec), std::move(load), std::move(train));
}

}  // namespace implex::addon
