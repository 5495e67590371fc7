// What the engine asks to be recorded: short scoring and decoding passes in pieces of layers, nothing but operations
// between begin and end, and a recording that is always ended, dropped where an operation fails or the pass is aborted.
#include "core/recording.h"

#include <cstdio>
#include <functional>
#include <type_traits>
#include <utility>

#include "generation/generate.h"
#include "reward/readout.h"
#include "tiny_model.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Log {
  int begun = 0, kept = 0, dropped = 0;
  int inside = 0;                        // operations that were recorded
  std::string wrong;                     // what was asked for within a recording and is no operation
  int refuse_begin = 0, refuse_end = 0;  // which call of it fails, from 1
  std::function<bool(int)> on_norm;      // of the norm with this number among those recorded; true: it fails
  bool open() const { return begun > kept + dropped; }
};
Log seen;

int32_t refuse(ix_status* status, int32_t code, const char* what) {
  status->code = code;
  std::snprintf(status->message, sizeof status->message, "%s is refused", what);
  return code;
}

// The CPU's table; what is no operation notes where it was called.
template <auto Function, typename Signature>
struct Outside;
template <auto Function, typename Result, typename... Arguments>
struct Outside<Function, Result (*)(ix_device*, Arguments...)> {
  static Result call(ix_device* device, Arguments... arguments) {
    if (seen.open()) seen.wrong += "something that is no operation; ";
    return (implex_cpu_backend()->*Function)(device, arguments...);
  }
};
template <auto Function>
constexpr auto outside = &Outside<Function, std::remove_cvref_t<decltype(std::declval<ix_backend>().*Function)>>::call;

const ix_backend* watched() {
  static const ix_backend table = [] {
    ix_backend t = *implex_cpu_backend();
    t.alloc = outside<&ix_backend::alloc>;
    t.release = outside<&ix_backend::release>;
    t.upload = outside<&ix_backend::upload>;
    t.download = outside<&ix_backend::download>;
    t.synchronize = outside<&ix_backend::synchronize>;
    t.weight_create = outside<&ix_backend::weight_create>;
    t.weight_write = outside<&ix_backend::weight_write>;
    t.weight_destroy = outside<&ix_backend::weight_destroy>;
    t.batch_create = outside<&ix_backend::batch_create>;
    t.batch_destroy = outside<&ix_backend::batch_destroy>;
    t.linear_reward = outside<&ix_backend::linear_reward>;  // takes arrays of the host: uploads
    t.norm = [](ix_device* device, const ix_norm* norm, const ix_mat* in, const ix_mat* out, ix_status* status) {
      if (seen.open() && seen.on_norm && seen.on_norm(seen.inside)) return refuse(status, IX_OUT_OF_MEMORY, "norm");
      if (seen.open()) ++seen.inside;
      return implex_cpu_backend()->norm(device, norm, in, out, status);
    };
    t.record_begin = [](ix_device*, ix_status* status) {
      if (seen.open()) seen.wrong += "begin within a recording; ";
      if (seen.refuse_begin > 0 && --seen.refuse_begin == 0) return refuse(status, IX_INTERNAL, "record_begin");
      ++seen.begun;
      return int32_t{IX_OK};
    };
    t.record_end = [](ix_device*, int32_t keep, ix_status* status) {
      if (!seen.open()) seen.wrong += "end without begin; ";
      ++(keep != 0 ? seen.kept : seen.dropped);
      if (keep != 0 && seen.refuse_end > 0 && --seen.refuse_end == 0) return refuse(status, IX_INTERNAL, "record_end");
      return int32_t{IX_OK};
    };
    return t;
  }();
  return &table;
}

constexpr int kLayers = 6;  // two pieces
static_assert(kLayers > kRecordedLayers && kLayers <= 2 * kRecordedLayers);

struct Fixture {
  TemporaryFolder folder;
  TinyModel tiny;
  std::unique_ptr<RewardModel> model, plain;
  TinyBatch batch;

  Fixture() {
    TinyOptions options = tiny_shapes()[0];
    options.spec.layers.resize(kLayers, options.spec.layers[0]);
    options.spec.max_positions = 2 * kRecordedTokens;
    tiny = make_tiny_model(options, 71, folder);
    CancelFlag cancel;
    seen = {};
    model = std::make_unique<RewardModel>(std::make_shared<Device>(watched()), tiny.spec, DType::kF32, nullptr, cancel);
    plain = load_model(tiny.spec, {}, cancel);
    Random random(72);
    batch = random_batch(random, tiny.spec);
  }

  std::vector<double> score(RewardModel& m, Readout readout, const CancelFlag& cancel = {}) {
    batch.request.readout = readout;
    return m.score(batch.request, cancel).values;
  }
};

}  // namespace

TEST(recording_of_short_passes) {
  Fixture f;
  CHECK(seen.begun == 0, "loading records nothing");
  for (const Readout readout : {Readout::kLogprob, Readout::kRewardLast, Readout::kRewardMean, Readout::kHiddenLast}) {
    seen = {};
    CHECK(f.score(*f.model, readout) == f.score(*f.plain, readout), "read-out %d", int(readout));
    CHECK(seen.begun == 2 && seen.kept == 2 && seen.dropped == 0, "%d begun, %d kept, %d dropped", seen.begun,
          seen.kept, seen.dropped);
    CHECK(seen.inside == 2 * kLayers && seen.wrong.empty(), "%d norms of layers recorded; %s", seen.inside,
          seen.wrong.c_str());
  }
}

TEST(recording_of_generation) {
  Fixture f;
  GenerateRequest request;
  request.tokens = {1, 2, 3, 4, 5};
  request.lengths = {3, 2};
  request.sequences = {0, 1, 1};
  request.seeds = {1, 2, 3};
  request.max_new_tokens = 3;
  CancelFlag cancel;
  const GenerateResult got = generate(f.model->transformer(), request, cancel);
  CHECK(got.tokens == generate(f.plain->transformer(), request, cancel).tokens, "the same tokens");
  // The prompts, and a step for each new token but the last.
  CHECK(seen.begun == 6 && seen.kept == 6 && seen.dropped == 0 && seen.wrong.empty(), "%d begun, %d kept; %s",
        seen.begun, seen.kept, seen.wrong.c_str());
}

TEST(recording_of_nothing_else) {
  Fixture f;
  const auto request_of = [&](int64_t tokens) {
    ScoreRequest request;
    for (int64_t i = 0; i < tokens; ++i) request.tokens.push_back(static_cast<int32_t>(i % 20));
    request.segments = {{0, static_cast<int32_t>(tokens), -1}};
    request.scored = {0};
    request.readout = Readout::kRewardLast;
    return request;
  };
  CancelFlag cancel;
  f.model->score(request_of(kRecordedTokens), cancel);
  CHECK(seen.begun == 2, "so many tokens are short");
  seen = {};
  f.model->score(request_of(kRecordedTokens + 1), cancel);
  CHECK(seen.begun == 0, "one more are not");

  const ScoreRequest request = request_of(12);
  const RaggedBatch batch(request.tokens, request.segments, f.tiny.spec.vocabulary(), f.tiny.spec.max_positions);
  for (const Transformer::Keep keep : {Transformer::Keep::kLayerInputs, Transformer::Keep::kAll}) {
    LogprobReadout readout(f.model->transformer(), LogprobPlan::of({3, 4}, {5, 6}));
    readout.forward(batch, keep, cancel);
    CHECK(seen.begun == 0, "a pass for training");
  }
  OpProfile::start();
  f.model->score(request, cancel);
  OpProfile::stop();
  CHECK(seen.begun == 0, "a profile waits for each operation");
}

TEST(recording_of_a_failure) {
  Fixture f;
  const std::vector<double> want = f.score(*f.plain, Readout::kRewardLast);
  // In the first piece and in the second.
  for (const int at : {0, 3, 2 * kLayers - 1}) {
    seen = {};
    seen.on_norm = [at](int norm) { return norm == at; };
    CHECK_ERROR(ErrorCode::kOutOfMemory, f.score(*f.model, Readout::kRewardLast), "norm is refused");
    CHECK(!seen.open() && seen.dropped == 1 && seen.kept == seen.begun - 1 && seen.wrong.empty(),
          "norm %d: %d begun, %d kept, %d dropped; %s", at, seen.begun, seen.kept, seen.dropped, seen.wrong.c_str());
    seen = {};
    CHECK(f.score(*f.model, Readout::kRewardLast) == want, "usable afterwards");
  }
}

TEST(recording_of_an_abort) {
  Fixture f;
  const std::vector<double> want = f.score(*f.plain, Readout::kRewardLast);
  CancelFlag cancel;
  seen = {};
  seen.on_norm = [&](int norm) {
    if (norm == 3) cancel.cancel();
    return false;
  };
  CHECK_ERROR(ErrorCode::kAborted, f.score(*f.model, Readout::kRewardLast, cancel), "aborted");
  CHECK(seen.begun == 1 && seen.dropped == 1 && seen.wrong.empty(), "%d begun, %d dropped; %s", seen.begun,
        seen.dropped, seen.wrong.c_str());
  seen = {};
  CHECK(f.score(*f.model, Readout::kRewardLast) == want, "usable afterwards");
}

TEST(recording_that_is_refused) {
  Fixture f;
  const std::vector<double> want = f.score(*f.plain, Readout::kRewardLast);
  for (const int which : {1, 2}) {
    seen = {};
    seen.refuse_begin = which;
    CHECK_ERROR(ErrorCode::kInternal, f.score(*f.model, Readout::kRewardLast), "record_begin is refused");
    CHECK(seen.begun == which - 1 && !seen.open() && seen.wrong.empty(), "what did not begin is not ended; %s",
          seen.wrong.c_str());
    seen = {};
    seen.refuse_end = which;
    CHECK_ERROR(ErrorCode::kInternal, f.score(*f.model, Readout::kRewardLast), "record_end is refused");
    CHECK(seen.begun == which && seen.dropped == 0 && seen.wrong.empty(), "an end that fails is not repeated; %s",
          seen.wrong.c_str());
  }
  seen = {};
  CHECK(f.score(*f.model, Readout::kRewardLast) == want, "usable afterwards");
}
