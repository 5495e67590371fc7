// The plain-data structures of training, read from and written to JavaScript; see marshal.h.
#pragma once

#include <vector>

#include "addon/napi_setup.h"
#include "train/trainer.h"

namespace implex::addon {

struct TrainBatch {
  TrainRequest request;
  bool gradients = true;
};

// hidden_size: of the spec, to check the head against.
TrainOptions read_train_options(const Napi::Value& value, int64_t hidden_size);
TrainBatch read_train_batch(const Napi::Value& value);
Napi::Value write_train_result(Napi::Env env, const TrainResult& result);
Napi::Value write_parameters(Napi::Env env, const std::vector<ParameterEntry>& entries);
Napi::Value write_memory(Napi::Env env, const TrainMemory& memory);

}  // namespace implex::addon
