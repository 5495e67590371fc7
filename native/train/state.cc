// A trainer's state on disk: a header, then the flat arrays as they are, then a checksum over all of it. Little-endian,
// as every machine that this engine runs on.
#include <algorithm>
#include <cstring>
#include <vector>

#include "io/atomic_file.h"
#include "io/file_range.h"
#include "train/trainer.h"

namespace implex {

namespace {

constexpr char kMagic[8] = {'i', 'm', 'p', 'l', 'e', 'x', 's', '1'};
constexpr size_t kBlockFloats = size_t{1} << 20;

struct Header {
  char magic[8];
  int64_t steps;
  int64_t size;     // floats of each array
  int64_t arrays;   // values, then the moments that exist
  uint64_t layout;  // hash of roles and shapes
};

// FNV-1a over 8-byte words: catches damage, not malice.
class Checksum {
 public:
  void add(const void* data, size_t bytes) {
    const char* at = static_cast<const char*>(data);
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
      uint64_t word;
      std::memcpy(&word, at + i, 8);
      mix(word);
    }
    for (size_t i = bytes / 8 * 8; i < bytes; ++i) mix(static_cast<unsigned char>(at[i]));
  }
  uint64_t value() const { return hash_; }

 private:
  void mix(uint64_t word) {
    hash_ = (hash_ ^ word) * 0x100000001b3u;
    hash_ ^= hash_ >> 29;
  }
  uint64_t hash_ = 0xcbf29ce484222325u;
};

uint64_t layout_of(const Parameters& parameters) {
  Checksum sum;
  for (const ParameterEntry& entry : parameters.entries()) {
    sum.add(entry.role.data(), entry.role.size());
    const int64_t numbers[3] = {entry.rows, entry.cols, entry.offset};
    sum.add(numbers, sizeof numbers);
  }
  return sum.value();
}

std::vector<float*> arrays_of(const Parameters& p) {
  std::vector<float*> arrays = {p.values()};
  if (p.first()) arrays.push_back(p.first());
  if (p.second()) arrays.push_back(p.second());
  return arrays;
}

// Calls body(array pointer + offset, count) for all arrays in blocks.
template <typename F>
void for_each_block(const Parameters& parameters, const F& body) {
  const auto size = static_cast<size_t>(parameters.size());
  for (float* array : arrays_of(parameters))
    for (size_t at = 0; at < size; at += kBlockFloats) body(array + at, std::min(kBlockFloats, size - at));
}

}  // namespace

void Trainer::save_state(const std::string& path) const {
  AtomicFile file(path);
  Checksum sum;
  Header header = {};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.steps = steps_;
  header.size = parameters_.size();
  header.arrays = static_cast<int64_t>(arrays_of(parameters_).size());
  header.layout = layout_of(parameters_);
  const auto write = [&](const void* data, size_t bytes) {
    sum.add(data, bytes);
    file.write(data, bytes);
  };
  write(&header, sizeof header);
  std::vector<float> block(kBlockFloats);
  for_each_block(parameters_, [&](float* from, size_t count) {
    device_->call(&ix_backend::download, block.data(), from, count * sizeof(float));
    write(block.data(), count * sizeof(float));
  });
  const uint64_t checksum = sum.value();
  file.write(&checksum, sizeof checksum);
  file.commit();
}

void Trainer::load_state(const std::string& path) {
  const FileRange file(path);
  Header header = {};
  const auto damaged = [&](const std::string& why) {
    return Error(ErrorCode::kIo, path + " is not a state of this run: " + why);
  };
  if (file.size() < sizeof header + sizeof(uint64_t)) throw damaged("it is too short");
  file.read(0, &header, sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) throw damaged("it does not start as one");
  const auto arrays = static_cast<int64_t>(arrays_of(parameters_).size());
  if (header.size != parameters_.size() || header.arrays != arrays || header.layout != layout_of(parameters_) ||
      header.steps < 0)
    throw damaged("it holds other parameters (another model, objective, optimiser or freezing)");
  const uint64_t expected =
      sizeof header + static_cast<uint64_t>(header.size * header.arrays) * sizeof(float) + sizeof(uint64_t);
  if (file.size() != expected) throw damaged("it is truncated");
  // Twice through the file: nothing is touched before the checksum holds.
  std::vector<float> block(kBlockFloats);
  uint64_t stored = 0;
  file.read(expected - sizeof stored, &stored, sizeof stored);
  for (const bool checking : {true, false}) {
    Checksum sum;
    sum.add(&header, sizeof header);
    uint64_t offset = sizeof header;
    for_each_block(parameters_, [&](float* to, size_t count) {
      file.read(offset, block.data(), count * sizeof(float));
      offset += count * sizeof(float);
      sum.add(block.data(), count * sizeof(float));
      if (!checking) device_->call(&ix_backend::upload, to, block.data(), count * sizeof(float));
    });
    if (sum.value() != stored) throw damaged("its checksum does not match");
  }
  steps_ = header.steps;
  Transformer& model = model_.transformer();
  parameters_.refresh(model.spec(), model.mutable_weights(), model_.head());
  zero_gradients();
}

}  // namespace implex
