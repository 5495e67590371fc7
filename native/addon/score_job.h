// ScoreJob: one call of score(), of a model or of a trainer.
#pragma once

#include <memory>
#include <string>

#include "addon/host.h"
#include "addon/loaded.h"

namespace implex::addon {

class ScoreJob : public PromiseJob {
 public:
  ScoreJob(Napi::Env env, std::shared_ptr<Scorer> scorer, ScoreRequest request);
  void execute() override;

 private:
  Napi::Value result(Napi::Env env) override;
  std::string out_of_memory() const override;

  ScoreRequest request_;
  ScoreResult result_;
  size_t tokens_ = 0;
  bool token_logprobs_ = false;
};

}  // namespace implex::addon
