#pragma once
// Checks of attend's arguments, before it writes any output.

#include <cstddef>
#include <cstdint>
#include <string>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/engine/attend_call.hpp"

namespace instinfer {

template <class Format>
std::uint32_t queries_of(const attend_request& r, const model_shape& shape) {
  return static_cast<std::uint32_t>(r.q.size() /
                                    static_cast<std::size_t>(shape.q_heads * Format::k_dim));
}

// Throws bad_argument unless a policy can serve the request over `tokens` live tokens. Query is the
// type to which the path rounds q.
template <class Policy, class Format, class Query = fp32>
void check_request(const attend_request& r, const model_shape& shape, std::uint32_t tokens) {
  using summaries = typename Policy::summaries::template states<Format>;
  const auto q_heads = static_cast<std::size_t>(shape.q_heads);
  const std::size_t n = queries_of<Format>(r, shape);
  require(n > 0 && r.q.size() == n * q_heads * Format::k_dim &&
              r.out.size() == n * q_heads * Format::v_dim,
          [&] {
            return "attend: q must be [" + std::to_string(q_heads) + ", " +
                   std::to_string(Format::k_dim) + "] and out [" + std::to_string(q_heads) + ", " +
                   std::to_string(Format::v_dim) + "], or n times that for n queries, got " +
                   std::to_string(r.q.size()) + " and " + std::to_string(r.out.size()) +
                   " elements";
          });
  require(n == 1 || n <= tokens, [&] {
    return "attend: " + std::to_string(n) +
           " queries need their tokens appended before, there are " + std::to_string(tokens);
  });
  require(
      n == 1 || attention::folds_all_visible<Policy> || attention::forgets_in_any_order<summaries>,
      [&] {
        return "attend: one query a call, got " + std::to_string(n) +
               "; the policy's summaries cannot leave out the tokens after a query's own";
      });
  r.index.validate();
  require(n == 1 || (r.index.queries.empty() && attention::shares_selection<Policy>), [&] {
    return "attend: one query a call with an index query or heads that select alone, got " +
           std::to_string(n);
  });
  for (std::size_t i = 0; i < r.q.size(); ++i) {
    require(is_finite(from_float<Query>(r.q[i])), [&] {
      const std::size_t row = i / Format::k_dim;
      return "attend: q must be finite" +
             (std::same_as<Query, fp32> ? std::string()
                                        : " as " + std::string(element_name<Query>)) +
             ", is not at [" +
             (n > 1 ? "query " + std::to_string(row / q_heads) + ", " : std::string()) + "head " +
             std::to_string(row % q_heads) + ", dim " + std::to_string(i % Format::k_dim) + "]";
    });
  }
}

}  // namespace instinfer
