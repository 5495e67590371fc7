// Validation of ragged batches.
#include "core/ragged_batch.h"

#include <limits>
#include <string>

#include "core/error.h"

namespace implex {

RaggedBatch::RaggedBatch(const std::vector<int32_t>& tokens, const std::vector<Segment>& segments, int64_t vocabulary,
                         int64_t max_positions)
    : tokens_(&tokens) {
  if (tokens.empty()) throw Error(ErrorCode::kBatchInvalid, "a batch needs at least one token");
  if (tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max() / 2))
    throw Error(ErrorCode::kBatchInvalid, "a batch of " + std::to_string(tokens.size()) + " tokens is too large");
  const auto total = static_cast<int64_t>(tokens.size());
  int64_t next = 0;
  segments_.reserve(segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& s = segments[i];
    const std::string name = "segment " + std::to_string(i);
    if (s.length <= 0) throw Error(ErrorCode::kBatchInvalid, name + " is empty");
    if (s.start != next || next + s.length > total)
      throw Error(ErrorCode::kBatchInvalid,
                  name + " starts at " + std::to_string(s.start) + " with length " + std::to_string(s.length) +
                      "; segments must follow each other without gaps over the " + std::to_string(total) + " tokens");
    next += s.length;
    int64_t base = 0;
    if (s.parent != -1) {
      if (s.parent < 0 || static_cast<size_t>(s.parent) >= i || segments[static_cast<size_t>(s.parent)].parent != -1)
        throw Error(ErrorCode::kBatchInvalid, name + " has parent " + std::to_string(s.parent) +
                                                  "; it must be an earlier segment without a parent");
      base = segments[static_cast<size_t>(s.parent)].length;
    }
    if (base + s.length > max_positions)
      throw Error(ErrorCode::kBatchInvalid, name + " ends at position " + std::to_string(base + s.length) +
                                                ", past the model's context of " + std::to_string(max_positions));
    segments_.push_back({s.start, s.length, s.parent});
  }
  if (next != total)
    throw Error(ErrorCode::kBatchInvalid,
                "the segments cover " + std::to_string(next) + " of " + std::to_string(total) + " tokens");
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary)
      throw Error(ErrorCode::kTokenRange, "token id " + std::to_string(tokens[i]) + " at index " + std::to_string(i) +
                                              " is outside the model's vocabulary of " + std::to_string(vocabulary));
  }
}

int32_t RaggedBatch::predecessor(int32_t segment) const {
  const int32_t parent = segments_[static_cast<size_t>(segment)].parent;
  return parent < 0 ? -1 : last_token(parent);
}

}  // namespace implex
