#pragma once
// The output of a trained indexer for a query (DSA), and the rule that chooses its heads (MISA).

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "instinfer/codec/element.hpp"
#include "instinfer/core/errors.hpp"

namespace instinfer::attention {

// The queries and weights of a trained indexer, for each query of an attend. If empty, the group's
// own queries are the index queries, each with weight 1.
struct index_query {
  std::span<const float> queries;  // [queries, heads, index_dim]
  std::span<const float> weights;  // [queries, heads]; may be negative

  // Those of query i of n.
  index_query of(std::size_t i, std::size_t n) const {
    const auto part = [&](std::span<const float> all) {
      return all.subspan(i * (all.size() / n), all.size() / n);
    };
    return {part(queries), part(weights)};
  }

  // Throws bad_argument unless every weight has a query and all values are finite.
  void validate() const {
    require(weights.empty() ? queries.empty()
                            : !queries.empty() && queries.size() % weights.size() == 0,
            [&] {
              return "index query: queries must be [heads, index_dim] and weights [heads], got " +
                     std::to_string(queries.size()) + " and " + std::to_string(weights.size()) +
                     " values";
            });
    const auto finite = [](float x) { return is_finite(x); };
    require(std::all_of(queries.begin(), queries.end(), finite) &&
                std::all_of(weights.begin(), weights.end(), finite),
            [] { return std::string("index query: queries and weights must be finite"); });
  }
};

// The score by which MISA chooses index heads for a query.
//   block_means   mean over blocks of |w relu(q . mean key)|: MISA's definition
//   query_norm    |w| |q|: needs no keys
//   newest_key    |w relu(q . newest key)|: as in one published kernel
enum class head_router : std::uint8_t { block_means, query_norm, newest_key };

}  // namespace instinfer::attention
