// Host logic of the CUDA device: how attention and the head are cut up, keys of products, settings, slots of graphs,
// texts of errors.
#include <map>
#include <string>

#include "../../cuda/host/attention_schedule.h"
#include "../../cuda/host/graph_slots.h"
#include "../../cuda/host/head_plan.h"
#include "../../cuda/host/messages.h"
#include "../../cuda/host/product_key.h"
#include "../../cuda/host/settings.h"
#include "harness.h"

using namespace implex::cuda;

namespace {

const std::vector<ix_segment> kSegments = {{0, 150, -1}, {150, 3, 0}, {153, 64, 0}, {217, 1, -1}, {218, 65, 3}};

}  // namespace

TEST(cuda_query_blocks) {
  const std::vector<QueryBlock> blocks = query_blocks_of(kSegments);
  int32_t next = 0;
  for (const QueryBlock& b : blocks) {
    CHECK(b.row == next && b.rows > 0 && b.rows <= kQueryRows, "rows without gaps, from %d", b.row);
    const ix_segment& own = kSegments[static_cast<size_t>(b.segment)];
    const int32_t before = own.parent < 0 ? 0 : kSegments[static_cast<size_t>(own.parent)].length;
    CHECK(b.row >= own.start && b.row + b.rows <= own.start + own.length, "a block of one segment");
    CHECK(b.last == before + b.row + b.rows - 1 - own.start, "last position %d", b.last);
    CHECK(b.first == before + b.row - own.start, "first position %d", b.first);
    next += b.rows;
  }
  CHECK(next == 283 && blocks.size() == 8, "%zu blocks of %d rows", blocks.size(), next);
  const std::vector<QueryBlock> sorted = longest_first(blocks);
  for (size_t i = 1; i < sorted.size(); ++i) CHECK(sorted[i - 1].last >= sorted[i].last, "longest first");
}

TEST(cuda_spans_and_key_tiles) {
  const std::vector<Span> spans = spans_of(kSegments);
  CHECK(token_of(spans[2], 0) == 0 && token_of(spans[2], 149) == 149 && token_of(spans[2], 150) == 153, "child");
  CHECK(token_of(spans[4], 0) == 217 && token_of(spans[4], 1) == 218, "child of a single token");
  CHECK(token_of(spans[0], 77) == 77 && spans[0].parent == -1 && spans[4].parent == 3, "prompt");
  int32_t tokens = 0;
  for (const KeyTile& t : key_tiles_of(kSegments)) {
    CHECK(t.token == tokens && t.tokens <= kKeyRows, "tiles without gaps");
    CHECK(token_of(spans[static_cast<size_t>(t.segment)], t.position) == t.token, "position %d", t.position);
    tokens += t.tokens;
  }
  CHECK(tokens == 283, "%d tokens", tokens);
}

// Against the definition: a row at position p sees the positions (p - window, p] of its own sequence.
TEST(cuda_windows) {
  const ix_attention none = {1, 1, 64, 1, 0, 0}, some = {1, 1, 64, 1, 7, 0};
  CHECK(window_of(none) == kNoWindow && window_of(some) == 7, "0 is no window");
  for (const int32_t window : {1, 2, 7, 64, 65, 200, kNoWindow}) {
    for (const int32_t position : {0, 1, 6, 7, 63, 64, 150}) {
      int32_t first = -1;
      for (int32_t key = 0; key < 300; ++key) {
        const bool seen = key <= position && static_cast<int64_t>(key) > static_cast<int64_t>(position) - window;
        CHECK(within(position - key, window) == seen, "window %d: %d sees %d", window, position, key);
        if (seen && first < 0) first = key;
      }
      CHECK(first_seen(position, window) == first, "window %d: the first that %d sees", window, position);
    }
    const std::vector<Span> spans = spans_of(kSegments);
    for (const QueryBlock& block : query_blocks_of(kSegments)) {
      const int32_t parent = spans[static_cast<size_t>(block.segment)].parent;
      for (const KeyTile& tile : key_tiles_of(kSegments)) {
        bool any = false;
        for (int32_t row = 0; row < block.rows; ++row)
          for (int32_t key = 0; key < tile.tokens; ++key)
            any = any || ((block.segment == tile.segment || parent == tile.segment) &&
                          within(block.first + row - (tile.position + key), window));
        CHECK(sees(block, parent, tile, window) == any, "window %d: rows from %d, keys from %d", window, block.row,
              tile.token);
      }
    }
  }
}

TEST(cuda_head_plan) {
  CHECK(vocabulary_chunks(128256) == 126 && vocabulary_chunks(1) == 1 && vocabulary_chunks(1024) == 1, "chunks");
  CHECK(partial_bytes(1 << 20, 151936) <= size_t{16} << 20, "forward's extra memory is bounded");
  CHECK(backward_stride(backward_columns(50304)) == 32768 && backward_stride(33) == 40, "strides");
  // Neither the columns nor the strides know the number of rows.
  const size_t gibibyte = size_t{1} << 30;
  CHECK(backward_rows(8192, 128256, 2, gibibyte) == 8192, "a GiB holds 8192 rows of bf16 gradients");
  CHECK(backward_rows(1 << 20, 128256, 2, gibibyte) == 16384, "and 16384 at most");
  CHECK(backward_rows(8192, 128256, 6, gibibyte) % 128 == 0, "whole tiles");
  CHECK(backward_rows(8192, 128256, 6, 1) == 128 && backward_rows(5, 128256, 6, 1) == 5, "at least a tile");
}

TEST(cuda_product_keys) {
  LibraryProduct p = {};
  p.m = 2048, p.n = 17, p.k = 512, p.lda = 512, p.ldb = 512, p.ldd = 2048;
  p.dtype = IX_BF16, p.out_dtype = IX_F32, p.a_transposed = true;
  LibraryProduct other = p;
  other.n = 16384;
  CHECK(key_of(p) == key_of(other), "the number of rows must not choose the algorithm");
  other.k = 1024;
  CHECK(!(key_of(p) == key_of(other)), "the depth may");
  LibraryProduct gradient = p;
  gradient.depth_varies = true;
  LibraryProduct longer = gradient;
  longer.k = 99;
  CHECK(key_of(gradient) == key_of(longer), "of a weight's gradient the depth is the number of tokens");
  CHECK(!(key_of(gradient) == key_of(p)), "and it is another kind of product");
  CHECK(library_aligned(p), "aligned");
  p.ldb = 513;
  CHECK(!library_aligned(p), "rows of odd length are not");
}

TEST(cuda_settings) {
  const auto read = [](const std::map<std::string, std::string>& values) {
    return read_settings([&](const char* name) -> const char* {
      const auto found = values.find(name);
      return found == values.end() ? nullptr : found->second.c_str();
    });
  };
  const Settings plain = read({});
  CHECK(plain.problem == nullptr && plain.ordinal == 0 && !plain.own_products && plain.hopper_allowed, "defaults");
  CHECK(plain.workspace == size_t{1} << 30 && plain.head == HeadScheme::kAutomatic && !plain.graphs, "defaults");
  const Settings set = read({{"IMPLEX_CUDA_DEVICE", "3"},
                             {"IMPLEX_CUDA_WORKSPACE", "64"},
                             {"IMPLEX_CUDA_PRODUCTS", "own"},
                             {"IMPLEX_CUDA_KERNELS", "sm80"},
                             {"IMPLEX_CUDA_HEAD", "product"},
                             {"IMPLEX_CUDA_GRAPHS", "1"}});
  CHECK(set.problem == nullptr && set.ordinal == 3 && set.workspace == size_t{64} << 20 && set.own_products, "set");
  CHECK(!set.hopper_allowed && set.head == HeadScheme::kProduct && set.graphs, "set");
  const Settings off = read({{"IMPLEX_CUDA_GRAPHS", "0"}});
  CHECK(off.problem == nullptr && !off.graphs, "off");
  for (const char* name : {"IMPLEX_CUDA_DEVICE", "IMPLEX_CUDA_WORKSPACE", "IMPLEX_CUDA_PRODUCTS", "IMPLEX_CUDA_KERNELS",
                           "IMPLEX_CUDA_HEAD", "IMPLEX_CUDA_GRAPHS"}) {
    const Settings bad = read({{name, "-1x"}});
    CHECK(bad.problem != nullptr && std::string(bad.problem).find(name) == 0, "%s=-1x is refused by name", name);
  }
}

TEST(cuda_graph_slots) {
  GraphSlots slots;
  std::map<size_t, int> kept;
  for (size_t nodes = 1; nodes <= GraphSlots::kSlots; ++nodes) kept[nodes] = slots.take(nodes);
  std::map<int, size_t> owners;
  for (const auto& [nodes, slot] : kept) {
    CHECK(slot >= 0 && slot < GraphSlots::kSlots && owners.emplace(slot, nodes).second, "slot %d twice", slot);
    CHECK(slots.take(nodes) == slot, "%zu nodes keep their slot", nodes);
  }
  slots.take(1);  // 2 is now the one that was not asked for the longest
  const int slot = slots.take(100);
  CHECK(slot == kept[2] && slots.take(100) == slot, "the oldest goes");
  CHECK(slots.take(1) == kept[1] && slots.take(8) == kept[8], "others stay");
  CHECK(slots.take(2) == kept[3], "and the next oldest after it");
}

TEST(cuda_error_texts) {
  char operation[128], text[508];
  operation_text(operation, sizeof operation, "gemm", 12, 2048, 512);
  CHECK(std::string(operation) == "gemm [12, 2048] by 512", "%s", operation);
  operation_text(operation, sizeof operation, "open", -1, -1, -1);
  CHECK(std::string(operation) == "open", "%s", operation);
  operation_text(operation, sizeof operation, "norm", 3, 4, -1);
  out_of_memory_text(text, sizeof text, operation, 3 << 20, 1 << 20, 8 << 20, "do this");
  CHECK(std::string(text) ==
            "norm [3, 4]: the GPU is out of memory: asked for 3.0 MiB (3145728 bytes), 1.0 MiB of 8.0 "
            "MiB are free; do this",
        "%s", text);
  cuda_error_text(text, sizeof text, operation, "cudaErrorX", "x", false);
  CHECK(std::string(text) == "norm [3, 4]: CUDA error cudaErrorX: x", "%s", text);
  cuda_error_text(text, sizeof text, operation, "cudaErrorX", "x", true);
  CHECK(std::string(text).find("x; IMPLEX_CUDA_GRAPHS=0") != std::string::npos, "%s", text);
  old_card_text(text, sizeof text, "Some card", 7, 5);
  CHECK(std::string(text).find("Some card has compute capability 7.5") == 0, "%s", text);
  CHECK(card_is_served(8) && card_is_served(9) && card_is_served(12) && !card_is_served(7), "sm_80 and newer");
}
