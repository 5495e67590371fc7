// Recorded operations on the emulated GPU: kept back until the end of the recording or the first thing that a captured
// stream cannot do, dropped when they are not wanted; models give the same bits, and a step with graphs that fails is
// an error that leaves the device usable.
#include "../tiny_model.h"
#include "generation/generate.h"
#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

constexpr const char* kGraphs = "IMPLEX_CUDA_GRAPHS";
constexpr int32_t kKeep = 1, kDrop = 0;

// Casts of one matrix to bf16: an operation of one kernel and without scratch.
class Casts {
 public:
  explicit Casts(TableDevice& device) : device_(device), want_(fresh()) {
    run(want_);  // a kernel's first launch is never kept back
  }
  Matrix fresh() const { return Matrix(IX_BF16, 3, 8); }
  void run(Matrix& out) {
    const ix_mat from = in_.view(), to = out.view();
    device_.call(&ix_backend::cast, &from, &to);
  }
  bool done(const Matrix& out) const { return out.bytes() == want_.bytes(); }
  bool untouched(const Matrix& out) const { return out.bytes() == fresh().bytes(); }
  Matrix& in() { return in_; }

 private:
  TableDevice& device_;
  Random random_{31};
  Matrix in_ = Matrix::random(random_, IX_F32, 3, 8);
  Matrix want_;
};

std::unique_ptr<RewardModel> load_gpu(const TinyModel& tiny, DType dtype, const char* graphs) {
  const Setting setting(kGraphs, graphs);
  CancelFlag cancel;
  LoadOptions options;
  options.dtype = dtype;
  options.device = "cuda";
  options.device_path = emulated_module();
  return load_model(tiny.spec, options, cancel);
}

// Layers for more than one piece.
TinyOptions deep(TinyOptions options) {
  options.spec.layers.resize(5, options.spec.layers[0]);
  return options;
}

// A prompt of four tokens and a response.
ScoreRequest short_request(int32_t length, Readout readout) {
  ScoreRequest request;
  for (int32_t i = 0; i < length; ++i) request.tokens.push_back(1 + i * 7 % 100);
  request.segments = {{0, 4, -1}, {4, length - 4, 0}};
  request.scored = {1};
  request.readout = readout;
  return request;
}

std::vector<double> score(RewardModel& model, const ScoreRequest& request) {
  CancelFlag cancel;
  return model.score(request, cancel).values;
}

}  // namespace

TEST(gpu_graphs_keep_operations_back) {
  const Setting setting(kGraphs, "1");
  TableDevice gpu(emulated_backend());
  Casts casts(gpu);
  for (int round = 0; round < 3; ++round) {
    // Other addresses each time, and other numbers of operations.
    std::vector<Matrix> outs(static_cast<size_t>(1 + round % 2), casts.fresh());
    gpu.call(&ix_backend::record_begin);
    for (Matrix& out : outs) casts.run(out);
    for (const Matrix& out : outs) CHECK(casts.untouched(out), "round %d: done before the end", round);
    gpu.call(&ix_backend::record_end, kKeep);
    for (const Matrix& out : outs) CHECK(casts.done(out), "round %d: not done at the end", round);
  }
  Matrix out = casts.fresh();
  gpu.call(&ix_backend::record_begin);
  casts.run(out);
  gpu.call(&ix_backend::record_end, kDrop);
  CHECK(casts.untouched(out), "dropped");
  casts.run(out);
  CHECK(casts.done(out), "after a recording operations are done as they come");
}

TEST(gpu_graphs_off) {
  TableDevice gpu(emulated_backend());
  Casts casts(gpu);
  Matrix out = casts.fresh();
  gpu.call(&ix_backend::record_begin);
  casts.run(out);
  CHECK(casts.done(out), "nothing is kept back");
  gpu.call(&ix_backend::record_end, kKeep);
}

// What a captured stream cannot do comes after all that was kept back, and the rest of the recording at once.
TEST(gpu_graphs_at_once) {
  const Setting setting(kGraphs, "1");
  TableDevice gpu(emulated_backend());
  Casts casts(gpu);
  const auto check = [&](const char* what, const auto& cause) {
    Matrix before = casts.fresh(), after = casts.fresh();
    gpu.call(&ix_backend::record_begin);
    casts.run(before);
    CHECK(casts.untouched(before), "%s: kept back", what);
    cause();
    CHECK(casts.done(before), "%s: comes after what was kept back", what);
    casts.run(after);
    CHECK(casts.done(after), "%s: the rest is done at once", what);
    gpu.call(&ix_backend::record_end, kKeep);
  };
  float value = 0;
  void* memory = nullptr;
  check("synchronize", [&] { gpu.call(&ix_backend::synchronize); });
  check("alloc", [&] { gpu.call(&ix_backend::alloc, sizeof value, &memory); });
  check("upload", [&] { gpu.call(&ix_backend::upload, memory, &value, sizeof value); });
  check("download", [&] { gpu.call(&ix_backend::download, &value, memory, sizeof value); });
  check("release", [&] { gpu.table()->release(gpu.handle(), memory); });
  const int32_t rows[] = {1};
  Matrix row(IX_F32, 1, 8);
  const auto gather = [&] {
    const ix_mat from = casts.in().view(), to = row.view();
    gpu.call(&ix_backend::gather_rows, &from, rows, &to);
  };
  check("a kernel's first launch", gather);
  CHECK(row.same_row(0, casts.in(), 1), "and it is done");
  double sum = 0;
  const auto squares = [&] {
    const ix_mat from = casts.in().view();
    gpu.call(&ix_backend::sum_of_squares, static_cast<const float*>(from.data), int64_t{24}, &sum);
  };
  check("scratch, and a result for the host", squares);
  check("a result for the host", squares);
  CHECK(sum > 0, "and it is there");
}

TEST(gpu_graphs_refusals) {
  const Setting setting(kGraphs, "1");
  TableDevice gpu(emulated_backend());
  Casts casts(gpu);
  Matrix out = casts.fresh(), narrow(IX_BF16, 3, 7);
  gpu.call(&ix_backend::record_begin);
  CHECK(gpu.attempt(&ix_backend::record_begin) == IX_INVALID && !gpu.message.empty(), "a recording in a recording");
  casts.run(out);
  const ix_mat from = casts.in().view(), to = narrow.view();
  CHECK(gpu.attempt(&ix_backend::cast, &from, &to) == IX_INVALID, "shapes that disagree");
  gpu.call(&ix_backend::record_end, kDrop);
  gpu.call(&ix_backend::record_end, kKeep);  // none is under way
  CHECK(casts.untouched(out), "dropped");
  casts.run(out);
  CHECK(casts.done(out), "usable afterwards");
}

TEST(gpu_graphs_same_bits) {
  const TemporaryFolder folder;
  for (const auto& [shape, dtype] : {std::pair{size_t{0}, DType::kF32}, std::pair{size_t{3}, DType::kBf16}}) {
    const TinyModel tiny = make_tiny_model(deep(tiny_shapes()[shape]), 61, folder);
    const std::unique_ptr<RewardModel> plain = load_gpu(tiny, dtype, "0"), graphs = load_gpu(tiny, dtype, "1");
    // The first is for the most part done at once, as everything is new.
    for (const int32_t length : {9, 12, 7})
      for (const Readout readout : {Readout::kLogprob, Readout::kRewardMean}) {
        const ScoreRequest request = short_request(length, readout);
        CHECK(score(*graphs, request) == score(*plain, request), "%s %s: %d tokens, read-out %d", tiny.options.name,
              dtype_name(dtype), length, int(readout));
      }
    GenerateRequest request;
    request.tokens = {1, 2, 3, 4, 5, 6, 7};
    request.lengths = {4, 3};
    request.sequences = {0, 1, 1};
    request.seeds = {7, 8, 9};
    request.max_new_tokens = 4;
    CancelFlag cancel;
    const GenerateResult want = generate(plain->transformer(), request, cancel);
    const GenerateResult got = generate(graphs->transformer(), request, cancel);
    CHECK(got.tokens == want.tokens && got.logprobs == want.logprobs, "%s %s: generation", tiny.options.name,
          dtype_name(dtype));
  }
}

TEST(gpu_graphs_failing) {
  const TemporaryFolder folder;
  const TinyModel tiny = make_tiny_model(deep(tiny_shapes()[0]), 63, folder);
  const ScoreRequest request = short_request(6, Readout::kRewardLast);
  const std::vector<double> want = score(*load_gpu(tiny, DType::kF32, "0"), request);
  for (const char* step : {"begin", "end", "make", "launch"}) {
    for (const bool first : {true, false}) {
      if (!first && std::string(step) == "make") continue;  // the graphs are there
      const std::unique_ptr<RewardModel> model = load_gpu(tiny, DType::kF32, "1");
      if (!first) CHECK(score(*model, request) == want && score(*model, request) == want, "%s", step);
      {
        const Setting fault("IMPLEX_EMULATED_GRAPH_FAULT", step);
        CHECK_ERROR(ErrorCode::kInternal, score(*model, request), "IMPLEX_CUDA_GRAPHS=0");
      }
      CHECK(score(*model, request) == want && score(*model, request) == want, "%s: usable afterwards", step);
    }
  }
  const std::unique_ptr<RewardModel> model = load_gpu(tiny, DType::kF32, "1");
  const Setting fault("IMPLEX_EMULATED_GRAPH_FAULT", "update");
  for (int round = 0; round < 3; ++round) CHECK(score(*model, request) == want, "graphs that are made anew each time");
}

// What was kept back is lost where launching it fails in a call that cannot say so: the end says it.
TEST(gpu_graphs_failing_in_silence) {
  const Setting setting(kGraphs, "1");
  TableDevice gpu(emulated_backend());
  Casts casts(gpu);
  Matrix out = casts.fresh();
  void* memory = nullptr;
  gpu.call(&ix_backend::alloc, size_t{8}, &memory);
  gpu.call(&ix_backend::record_begin);
  casts.run(out);
  {
    const Setting fault("IMPLEX_EMULATED_GRAPH_FAULT", "launch");
    gpu.table()->release(gpu.handle(), memory);
  }
  CHECK(gpu.attempt(&ix_backend::record_end, kKeep) == IX_INTERNAL && !gpu.message.empty(), "the end reports it");
  casts.run(out);
  CHECK(casts.done(out), "usable afterwards");
}
