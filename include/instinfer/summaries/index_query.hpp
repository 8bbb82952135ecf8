#pragma once
// What a trained indexer gives beside the query (DSA), and how its heads are chosen (MISA).

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "instinfer/codec/element.hpp"
#include "instinfer/core/errors.hpp"

namespace instinfer::attention {

// What a trained indexer gives beside the query. Empty: the group's own queries index, each with weight 1.
struct index_query {
  std::span<const float> queries;  // [heads, index_dim]
  std::span<const float> weights;  // [heads]; may be negative

  // Throws bad_argument unless there is a query a weight, and all are finite.
  void validate() const {
    require(weights.empty() ? queries.empty()
                            : !queries.empty() && queries.size() % weights.size() == 0,
            [&] {
              return "index query: queries must be [heads, index_dim] and weights [heads], got " +
                     std::to_string(queries.size()) + " and " + std::to_string(weights.size()) +
                     " values";
            });
    const auto finite = [](float x) { return is_finite(x); };
    require(std::ranges::all_of(queries, finite) && std::ranges::all_of(weights, finite),
            [] { return std::string("index query: queries and weights must be finite"); });
  }
};

// By what MISA takes index heads for a query.
//   block_means   mean over blocks of |w relu(q . mean key)|, the definition
//   query_norm    |w| |q|: needs no keys
//   newest_key    |w relu(q . the newest key)|, as one published kernel does
enum class head_router : std::uint8_t { block_means, query_norm, newest_key };

}  // namespace instinfer::attention
