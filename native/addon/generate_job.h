// GenerateJob: one call of a model's generate().
#pragma once

#include <memory>
#include <string>

#include "addon/host.h"
#include "addon/loaded.h"
#include "generation/generate.h"

namespace implex::addon {

GenerateRequest read_generate_request(const Napi::Value& value);

class GenerateJob : public PromiseJob {
 public:
  GenerateJob(Napi::Env env, std::shared_ptr<LoadedModel> loaded, GenerateRequest request);
  void execute() override;

 private:
  Napi::Value result(Napi::Env env) override;
  std::string out_of_memory() const override;

  GenerateRequest request_;
  GenerateResult result_;
  size_t sequences_ = 0;
};

}  // namespace implex::addon
