// RaggedBatch: prompts and responses back to back without padding, and which rows of the last hidden state a read-out
// needs.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"

namespace implex {

struct Segment {
  int32_t start = 0;
  int32_t length = 0;
  int32_t parent = -1;  // an earlier segment without a parent, or -1
};

class RaggedBatch {
 public:
  // Checks everything that comes from outside: segments in order and without gaps, parents earlier and parentless, ids
  // inside the vocabulary, positions inside the context. Throws Error(kBatchInvalid | kTokenRange).
  RaggedBatch(const std::vector<int32_t>& tokens, const std::vector<Segment>& segments, int64_t vocabulary,
              int64_t max_positions);

  const std::vector<int32_t>& tokens() const { return *tokens_; }
  const std::vector<ix_segment>& segments() const { return segments_; }
  int64_t size() const { return static_cast<int64_t>(tokens_->size()); }
  // Token before `segment`'s first one in its sequence: the parent's last token, or -1.
  int32_t predecessor(int32_t segment) const;
  int32_t last_token(int32_t segment) const {
    return segments_[static_cast<size_t>(segment)].start + segments_[static_cast<size_t>(segment)].length - 1;
  }

 private:
  const std::vector<int32_t>* tokens_;  // the caller's
  std::vector<ix_segment> segments_;
};

}  // namespace implex
