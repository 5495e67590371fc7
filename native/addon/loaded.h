// What the engine's jobs work on: a loaded model, or a trainer with its model inside.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "addon/engine.h"
#include "reward/reward_model.h"
#include "train/trainer.h"

namespace implex::addon {

// Read once, on the engine thread, so that getters never ask a model that may be at work.
struct Facts {
  std::string device;
  std::string kernels;
  size_t weight_bytes = 0;
  size_t memory_bytes = 0;  // everything that is held until the end; V8 is told of it
  int64_t hidden_size = 0;
};

class Scorer : public Resource {
 public:
  // The model, fit for this request. Throws when it is not.
  virtual RewardModel& scoring_model(const ScoreRequest& request) = 0;
};

class LoadedModel final : public Scorer {
 public:
  static constexpr char kNoun[] = "model";
  struct Facts : addon::Facts {
    bool has_head = false;
    bool has_unembedding = false;
  };

  const char* noun() const override { return kNoun; }
  RewardModel& scoring_model(const ScoreRequest& request) override;

  std::unique_ptr<RewardModel> model;
  std::optional<Failure> head_failure;  // setting the head failed: rewards by the old head would be wrong
};

class LoadedTrainer final : public Scorer {
 public:
  static constexpr char kNoun[] = "trainer";
  struct Facts : addon::Facts {
    std::vector<ParameterEntry> parameters;
  };

  const char* noun() const override { return kNoun; }
  RewardModel& scoring_model(const ScoreRequest&) override { return trainer->model(); }

  std::unique_ptr<Trainer> trainer;
};

}  // namespace implex::addon
