#pragma once
// An engine of the library behind virtual calls: for programs that choose method, storage and head
// size at run time. typed_engine.hpp implements it, once for each combination.

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "bench/worker_pool.hpp"
#include "instinfer/core/logit_rule.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/core/traffic.hpp"
#include "instinfer/store/layer/extents.hpp"
#include "instinfer_llm.h"

namespace instinfer::llm {

// What one kind of layers is made of.
struct engine_settings {
  model_shape shape;  // all layers of the model, those of other kinds too
  logit_rule logits;
  store::capacity capacity;
  double budget = 1.0;   // share of K and V in (0, 1]
  std::string settings;  // name=value, separated by commas
  double rope_base = 0;
  std::string drive;  // folder, or empty for memory
};

// The new tokens of one sequence, with elements of `type` (INSTINFER_LLM_FP32 ...).
struct token_rows {
  sequence seq;
  const instinfer_llm_tokens* of = nullptr;
  std::int32_t type = INSTINFER_LLM_FP32;
};

class any_engine {
 public:
  virtual ~any_engine() = default;

  virtual sequence open() = 0;
  virtual sequence fork(sequence seq) = 0;
  virtual void truncate(sequence seq, int first_layer, int end_layer, std::uint64_t tokens) = 0;
  virtual void reclaim(sequence seq) = 0;
  virtual std::uint64_t length(sequence seq, int layer) const = 0;

  // What instinfer_llm_prefill and instinfer_llm_decode do, in one layer. They add to `usage`.
  virtual void prefill(std::span<const token_rows> batch, int layer,
                       instinfer_llm_usage& usage) = 0;
  virtual void decode(std::span<const token_rows> batch, int layer, bool timed,
                      const bench::worker_pool& workers, instinfer_llm_usage& usage) = 0;
};

// Null if no method has this name. Each unit instantiates one.
template <class Storage, int HeadDim>
std::unique_ptr<any_engine> make_engine(const std::string& method, const engine_settings& with);

}  // namespace instinfer::llm
