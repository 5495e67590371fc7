// How attention is cut into pieces of work. Plain C++, tested without a GPU.
//
// A query block is up to kQueryRows neighbouring rows of one segment with ascending positions. A key tile is up to
// kKeyRows neighbouring tokens of one segment, for the gradients of keys and values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "backend.h"
#include "layout.h"

namespace implex::cuda {

constexpr int32_t kQueryRows = 64;
constexpr int32_t kKeyRows = 64;

struct QueryBlock {
  int32_t row, rows, segment;
  int32_t first, last;  // positions of the first and the last row
};

struct KeyTile {
  int32_t token, tokens, segment, position;  // first token and its position
};

// A window is the number of keys that a row sees, its own the last; kNoWindow: all.
constexpr int32_t kNoWindow = std::numeric_limits<int32_t>::max();
inline int32_t window_of(const ix_attention& attention) { return attention.window > 0 ? attention.window : kNoWindow; }

// Whether a row sees the key that lies `distance` positions before it: neither after it (a negative number is a large
// unsigned one) nor beyond its window.
IMPLEX_ANYWHERE constexpr bool within(int32_t distance, int32_t window) {
  return static_cast<uint32_t>(distance) < static_cast<uint32_t>(window);
}
// The first position that a row of this position sees.
IMPLEX_ANYWHERE constexpr int32_t first_seen(int32_t position, int32_t window) {
  const int32_t first = position - (window - 1);
  return first > 0 ? first : 0;
}
// Whether a block has rows that see a tile of keys: rows of its segment from its first position on, and all rows of the
// segment's children, as far as their windows reach. `parent`: of the block's segment.
IMPLEX_ANYWHERE constexpr bool sees(const QueryBlock& block, int32_t parent, const KeyTile& tile, int32_t window) {
  return block.first - window < tile.position + tile.tokens - 1 &&
         (block.segment == tile.segment ? block.last >= tile.position : parent == tile.segment);
}

// What a token of a segment sees: `before` tokens from `before_start` on, then its own segment from `start` on.
struct Span {
  int32_t before_start, before, start, parent;
};

inline std::vector<Span> spans_of(const std::vector<ix_segment>& segments) {
  std::vector<Span> spans;
  for (const ix_segment& s : segments) {
    Span span = {0, 0, s.start, s.parent};
    if (s.parent >= 0) {
      const ix_segment& parent = segments[static_cast<size_t>(s.parent)];
      span.before_start = parent.start;
      span.before = parent.length;
    }
    spans.push_back(span);
  }
  return spans;
}

// The token that holds position `position` of a sequence.
inline int32_t token_of(const Span& span, int32_t position) {
  return position < span.before ? span.before_start + position : span.start + position - span.before;
}

// Blocks of all tokens, in order.
inline std::vector<QueryBlock> query_blocks_of(const std::vector<ix_segment>& segments) {
  std::vector<QueryBlock> blocks;
  for (size_t s = 0; s < segments.size(); ++s) {
    const ix_segment& own = segments[s];
    const int32_t before = own.parent < 0 ? 0 : segments[static_cast<size_t>(own.parent)].length;
    for (int32_t at = 0; at < own.length; at += kQueryRows) {
      const int32_t rows = std::min(kQueryRows, own.length - at);
      blocks.push_back({own.start + at, rows, static_cast<int32_t>(s), before + at, before + at + rows - 1});
    }
  }
  return blocks;
}

// The same blocks, those with most keys first: the last ones to start are then short. Ties keep their order.
inline std::vector<QueryBlock> longest_first(std::vector<QueryBlock> blocks) {
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const QueryBlock& a, const QueryBlock& b) { return a.last > b.last; });
  return blocks;
}

inline std::vector<KeyTile> key_tiles_of(const std::vector<ix_segment>& segments) {
  std::vector<KeyTile> tiles;
  for (size_t s = 0; s < segments.size(); ++s) {
    const ix_segment& own = segments[s];
    const int32_t before = own.parent < 0 ? 0 : segments[static_cast<size_t>(own.parent)].length;
    for (int32_t at = 0; at < own.length; at += kKeyRows)
      tiles.push_back({own.start + at, std::min(kKeyRows, own.length - at), static_cast<int32_t>(s), before + at});
  }
  return tiles;
}

}  // namespace implex::cuda
