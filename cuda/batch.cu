// The shape of a batch on the device: each token's segment and position, and how attention is cut up.
#include <cstring>
#include <new>

#include "device.h"

namespace implex::cuda {

namespace {

// Appends an array to `bytes`, aligned to 256, and gives its offset.
template <typename T>
size_t append(std::vector<char>& bytes, const std::vector<T>& values) {
  const size_t at = (bytes.size() + 255) / 256 * 256;
  bytes.resize(at + values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data() + at, values.data(), values.size() * sizeof(T));
  return at;
}

template <typename T>
const T* pointer(void* memory, size_t offset) {
  return reinterpret_cast<const T*>(static_cast<char*>(memory) + offset);
}

}  // namespace

int32_t batch_create(ix_device* device, const ix_segment* segments, int32_t count, ix_batch** batch,
                     ix_status* status) {
  *batch = nullptr;
  Call call(device, status, "batch_create", count);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  std::unique_ptr<ix_batch> b(new (std::nothrow) ix_batch);
  if (b == nullptr) return call.fail(IX_OUT_OF_MEMORY, "out of host memory");
  std::vector<char> bytes;
  size_t at[7];
  try {
    b->segments.assign(segments, segments + count);
    std::vector<int32_t> segment_of, positions;
    for (int32_t s = 0; s < count; ++s) {
      const int32_t before = segments[s].parent < 0 ? 0 : segments[segments[s].parent].length;
      for (int32_t i = 0; i < segments[s].length; ++i) {
        segment_of.push_back(s);
        positions.push_back(before + i);
      }
    }
    b->tokens = static_cast<int32_t>(positions.size());
    b->blocks = query_blocks_of(b->segments);
    b->tiles = key_tiles_of(b->segments);
    at[0] = append(bytes, segment_of);
    at[1] = append(bytes, positions);
    at[2] = append(bytes, spans_of(b->segments));
    at[3] = append(bytes, longest_first(b->blocks));
    at[4] = append(bytes, std::vector<int32_t>{static_cast<int32_t>(b->blocks.size())});
    at[5] = append(bytes, b->blocks);
    at[6] = append(bytes, b->tiles);
  } catch (const std::bad_alloc&) {
    return call.fail(IX_OUT_OF_MEMORY, "out of host memory");
  }
  code = call.alloc(bytes.size(), &b->memory);
  if (code == IX_OK) code = call.upload(b->memory, bytes.data(), bytes.size());
  if (code != IX_OK) {
    call.release(b->memory);
    return code;
  }
  b->segment_of = pointer<int32_t>(b->memory, at[0]);
  b->positions = pointer<int32_t>(b->memory, at[1]);
  b->spans = pointer<Span>(b->memory, at[2]);
  b->query_blocks = pointer<QueryBlock>(b->memory, at[3]);
  b->query_block_count = pointer<int32_t>(b->memory, at[4]);
  b->ordered_blocks = pointer<QueryBlock>(b->memory, at[5]);
  b->key_tiles = pointer<KeyTile>(b->memory, at[6]);
  *batch = b.release();
  return IX_OK;
}

void batch_destroy(ix_device* device, ix_batch* batch) {
  if (batch == nullptr) return;
  release(device, batch->memory);
  delete batch;
}

}  // namespace implex::cuda
