// The plain-data structures of the model's interface, read from and written to JavaScript (lib/native/binding.ts has
// their types). Types and number ranges are checked here, field by field; whether the numbers make sense together is
// the model's to say.
#pragma once

#include "addon/napi_setup.h"
#include "reward/reward_model.h"

namespace implex::addon {

ModelSpec read_spec(const Napi::Value& value);
LoadOptions read_load_options(const Napi::Value& value);
ScoreRequest read_request(const Napi::Value& value);
Napi::Object write_result(Napi::Env env, const ScoreResult& result, bool token_logprobs);

}  // namespace implex::addon
