#pragma once
// Observers of a machine: the flash path charges what they see, tests and traces record it.

#include <concepts>
#include <cstddef>
#include <cstdint>

#include "instinfer/core/access_plan.hpp"

namespace instinfer::attention {

enum class operation : std::uint8_t {
  all_tokens,
  top_dims,
  score_dims,
  top_tokens,
  fold,
  choose_tokens,  // by position, or as members of chunks
  top_chunks,
  score_chunks,
  score_tokens,
  fold_scored
};

// An observer of a machine. chose() gets every selection, and accessed() every plan before it is
// executed. An observer may also have scored(op, rows, row_dim, heads): `heads` queries are scored
// against that many rows of a summary.
template <class O>
concept Observer = requires(O& o, operation op, index_view chosen, const access_plan& plan) {
  o.chose(op, chosen);
  o.accessed(op, plan);
};

// Ignores everything. It serves a machine, and an engine, which asks for one observer per KV head.
struct no_observer {
  no_observer head(std::uint32_t /*kv_head*/) const { return {}; }
  void chose(operation, index_view) {}
  void accessed(operation, const access_plan&) {}
};

// An observer without its type: machines are compiled once for all observers. Default: nobody
// observes. The observer must outlive it.
class observer_ref {
 public:
  observer_ref() = default;
  observer_ref(no_observer&) {}
  template <Observer O>
    requires(!std::same_as<O, observer_ref>)
  observer_ref(O& observer)
      : observer_{const_cast<void*>(static_cast<const void*>(&observer))}, calls_{&calls_of<O>} {}

  void chose(operation op, index_view set) const {
    if (calls_ != nullptr) {
      calls_->chose(observer_, op, set);
    }
  }
  void accessed(operation op, const access_plan& plan) const {
    if (calls_ != nullptr) {
      calls_->accessed(observer_, op, plan);
    }
  }
  void scored(operation op, std::uint32_t rows, std::size_t row_dim, std::uint32_t heads) const {
    if (calls_ != nullptr) {
      calls_->scored(observer_, op, rows, row_dim, heads);
    }
  }

 private:
  struct calls {
    void (*chose)(void*, operation, index_view);
    void (*accessed)(void*, operation, const access_plan&);
    void (*scored)(void*, operation, std::uint32_t, std::size_t, std::uint32_t);
  };

  template <class O>
  static constexpr calls calls_of{
      [](void* o, operation op, index_view set) { static_cast<O*>(o)->chose(op, set); },
      [](void* o, operation op, const access_plan& plan) {
        static_cast<O*>(o)->accessed(op, plan);
      },
      [](void* o, operation op, std::uint32_t rows, std::size_t row_dim, std::uint32_t heads) {
        if constexpr (requires(O& x) { x.scored(op, rows, row_dim, heads); }) {
          static_cast<O*>(o)->scored(op, rows, row_dim, heads);
        }
      }};

  void* observer_ = nullptr;
  const calls* calls_ = nullptr;
};

}  // namespace instinfer::attention
