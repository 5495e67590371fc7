// A trainer's state on disk: going on from it changes no bit, nothing damaged is taken, and files appear whole or not
// at all.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "io/atomic_file.h"
#include "train_support.h"

using namespace implex;
using namespace implex::test;

namespace {

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

size_t files_in(const std::string& folder) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) count += entry.path().empty() ? 0 : 1;
  return count;
}

struct OptimizerCase {
  const char* name;
  OptimizerOptions options;
};
std::vector<OptimizerCase> optimizers() {
  OptimizerOptions adamw, rmsprop, momentum, sgd;
  adamw.weight_decay = 0.01;
  rmsprop.kind = OptimizerKind::kRmsProp;
  rmsprop.beta2 = 0.99;
  momentum = rmsprop;
  momentum.momentum = 0.9;
  sgd.kind = OptimizerKind::kSgd;
  OptimizerOptions sgd_momentum = sgd;
  sgd_momentum.momentum = 0.9;
  return {{"adamw", adamw},
          {"rmsprop", rmsprop},
          {"rmsprop momentum", momentum},
          {"sgd", sgd},
          {"sgd momentum", sgd_momentum}};
}

}  // namespace

TEST(trainer_state_goes_on_bit_for_bit) {
  const TemporaryFolder folder;
  for (const TinyOptions& options : {tiny_shapes()[0], tiny_shapes()[3], tiny_shapes()[4]}) {
    const TinyModel tiny = make_tiny_model(options, 1100, folder);
    Random random(1101);
    std::vector<TrainRequest> requests;
    for (int i = 0; i < 4; ++i)
      requests.push_back(for_objective(random_train_batch(random, tiny.spec), Objective::kExplicit));
    for (const OptimizerCase& optimizer : optimizers()) {
      for (const DType dtype : {DType::kF32, DType::kBf16}) {
        TrainOptions train = objectives(tiny.spec)[1].options;
        train.optimizer = optimizer.options;
        const std::string path = folder.path() + "/state";
        const auto step = [&](Trainer& trainer, size_t i) {
          accumulate(trainer, requests[i]);
          trainer.step(1e-3, 1);
        };
        const std::unique_ptr<Trainer> whole = make_trainer(tiny.spec, train, dtype);
        for (size_t i = 0; i < 2; ++i) step(*whole, i);
        whole->save_state(path);
        const std::unique_ptr<Trainer> resumed = make_trainer(tiny.spec, train, dtype);
        accumulate(*resumed, requests[3]);  // gradients that must not survive
        resumed->load_state(path);
        CHECK(resumed->steps() == 2, "%s: %d steps", optimizer.name, int(resumed->steps()));
        CHECK(accumulate(*resumed, requests[3], false).losses == accumulate(*whole, requests[3], false).losses,
              "%s %s: losses after loading", options.name, optimizer.name);
        for (size_t i = 2; i < 4; ++i) step(*whole, i), step(*resumed, i);
        CHECK(parameters_of(*resumed) == parameters_of(*whole), "%s %s %s: parameters differ", options.name,
              optimizer.name, dtype_name(dtype));
        whole->save_state(path + ".a");
        resumed->save_state(path + ".b");
        CHECK(content_of(path + ".a") == content_of(path + ".b"), "%s %s: states differ", options.name, optimizer.name);
      }
    }
  }
}

TEST(trainer_state_damaged_is_refused) {
  const TemporaryFolder folder;
  const TinyModel tiny = make_tiny_model(tiny_shapes()[3], 1110, folder);
  Random random(1111);
  const TrainRequest request = for_objective(random_train_batch(random, tiny.spec), Objective::kExplicit);
  const TrainOptions train = objectives(tiny.spec)[0].options;
  const std::unique_ptr<Trainer> trainer = make_trainer(tiny.spec, train);
  accumulate(*trainer, request);
  trainer->step(1e-3, 0);
  const std::string path = folder.path() + "/state";
  trainer->save_state(path);
  const std::string good = content_of(path);
  accumulate(*trainer, request);
  trainer->step(1e-3, 0);  // the trainer is now elsewhere than the file
  accumulate(*trainer, request);
  const Arrays parameters = parameters_of(*trainer), gradients = gradients_of(*trainer);
  const auto refused = [&](const std::string& content, const std::string& what, const char* part) {
    const std::string bad = folder.write("bad", content);
    try {
      trainer->load_state(bad);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kIo && std::string(error.what()).find(part) != std::string::npos, "%s: %s",
            what.c_str(), error.what());
      CHECK(trainer->steps() == 2, "%s: %d steps", what.c_str(), int(trainer->steps()));
      return;
    }
    CHECK(false, "%s was taken", what.c_str());
  };
  // Every byte of the header and of the checksum, and bytes all over the arrays; one bit each.
  std::vector<size_t> places;
  for (size_t i = 0; i < 40; ++i) places.push_back(i);
  for (size_t i = 0; i < 8; ++i) places.push_back(good.size() - 1 - i);
  for (int i = 0; i < 100; ++i)
    places.push_back(40 + static_cast<size_t>(random.below(static_cast<int64_t>(good.size()) - 48)));
  for (const size_t at : places) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << random.below(8)));
    refused(bad, text("a bit of byte %zu of %zu flipped", at, good.size()), "bad");
  }
  for (const size_t length :
       {size_t{0}, size_t{1}, size_t{47}, size_t{48}, good.size() / 2, good.size() - 8, good.size() - 1})
    refused(good.substr(0, length), text("the first %zu of %zu bytes", length, good.size()),
            length < 48 ? "short" : "truncated");
  refused(good + "x", "a byte too many", "truncated");
  std::string swapped = good;
  std::swap_ranges(swapped.begin() + 40, swapped.begin() + 48, swapped.begin() + 48);
  refused(swapped, "two words swapped", "checksum");
  CHECK_ERROR(ErrorCode::kIo, trainer->load_state(folder.path() + "/absent"), "absent");

  // Other layouts: each is refused by this trainer.
  const auto saved = [&](const TinyModel& model, TrainOptions options) {
    const std::string other = folder.path() + "/other";
    make_trainer(model.spec, options)->save_state(other);
    return content_of(other);
  };
  TrainOptions other = train;
  other.frozen.norms = true;
  refused(saved(tiny, other), "other frozen parts", "other parameters");
  other = train;
  other.optimizer.kind = OptimizerKind::kSgd;
  refused(saved(tiny, other), "another optimiser", "other parameters");
  refused(saved(tiny, objectives(tiny.spec)[2].options), "another objective", "other parameters");
  TinyOptions shape = tiny_shapes()[3];  // as many values as before, in other shapes
  shape.spec.hidden_size = 40;
  shape.spec.vocab_size -= 1;
  refused(saved(make_tiny_model(shape, 1112, folder), train), "another vocabulary", "other parameters");

  CHECK(parameters_of(*trainer) == parameters && gradients_of(*trainer) == gradients,
        "a refused state changed something");
  trainer->load_state(path);
  CHECK(trainer->steps() == 1 && parameters_of(*trainer) != parameters, "the whole file is taken");
}

TEST(trainer_state_unwritable) {
  const TemporaryFolder folder;
  const TinyModel tiny = make_tiny_model(tiny_shapes()[1], 1120, folder);
  const std::unique_ptr<Trainer> trainer = make_trainer(tiny.spec, objectives(tiny.spec)[0].options);
  CHECK_ERROR(ErrorCode::kIo, trainer->save_state(folder.path() + "/absent/state"), "absent/state");
  const std::string file = folder.write("file", "text");
  CHECK_ERROR(ErrorCode::kIo, trainer->save_state(file + "/state"), "file/state");
  trainer->save_state(folder.path() + "/state");
  trainer->load_state(folder.path() + "/state");
}

TEST(atomic_file_replaces_whole) {
  const TemporaryFolder folder;
  const std::string path = folder.write("target", "old");
  {
    AtomicFile file(path);
    file.write("new ", 4);
    CHECK(content_of(path) == "old" && files_in(folder.path()) == 2, "the old file stays until commit");
    file.write("text", 4);
    file.commit();
  }
  CHECK(content_of(path) == "new text" && files_in(folder.path()) == 1, "the new file");
  {
    AtomicFile file(path);
    file.write("half", 4);
  }
  CHECK(content_of(path) == "new text" && files_in(folder.path()) == 1, "without commit nothing changes");
  {
    AtomicFile file(folder.path() + "/fresh");
    file.commit();
  }
  CHECK(content_of(folder.path() + "/fresh").empty() && files_in(folder.path()) == 2, "an empty file");
}

TEST(atomic_file_failures) {
  const TemporaryFolder folder;
  CHECK_ERROR(ErrorCode::kIo, AtomicFile(folder.path() + "/absent/target"), "absent/target");
  // The target is a folder: renaming over it fails, and nothing is left behind.
  std::filesystem::create_directory(folder.path() + "/taken");
  {
    AtomicFile file(folder.path() + "/taken");
    file.write("x", 1);
    CHECK_ERROR(ErrorCode::kIo, file.commit(), "rename");
  }
  CHECK(files_in(folder.path()) == 1, "the temporary file is removed");
  // A write that fails half-way, by a limit on the size of files.
  const std::string path = folder.write("target", "old");
  const std::string big(100000, 'x');
  rlimit before = {};
  CHECK(::getrlimit(RLIMIT_FSIZE, &before) == 0, "getrlimit");
  rlimit small = before;
  small.rlim_cur = 50000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  CHECK(::setrlimit(RLIMIT_FSIZE, &small) == 0, "setrlimit");
  std::string outcome = "nothing was thrown";
  try {
    AtomicFile file(path);
    file.write(big.data(), big.size());
    file.commit();
  } catch (const Error& error) {
    outcome = error.code() == ErrorCode::kIo && std::string(error.what()).find("target") != std::string::npos
                  ? ""
                  : error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(outcome.empty(), "%s", outcome.c_str());
  CHECK(content_of(path) == "old" && files_in(folder.path()) == 2, "the target keeps its content");
}

// A full disk, by a temporary file that leads to the device which is always full.
TEST(atomic_file_disk_full) {
  if (!std::filesystem::exists("/dev/full")) SKIP("no /dev/full here");
  const TemporaryFolder folder;
  const std::string path = folder.write("target", "old");
  std::filesystem::create_symlink("/dev/full", path + ".tmp-" + std::to_string(::getpid()));
  {
    AtomicFile file(path);
    CHECK_ERROR(ErrorCode::kDiskFull, file.write("new", 3), "target");
  }
  CHECK(content_of(path) == "old" && files_in(folder.path()) == 1, "the target keeps its content");
}
