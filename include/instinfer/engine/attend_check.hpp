#pragma once
// Checks of attend's arguments, before it writes any output.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/engine/attend_call.hpp"

namespace instinfer {

template <class Format>
std::uint32_t queries_of(const attend_request& r, const model_shape& shape) {
  return static_cast<std::uint32_t>(r.q.size() / shape.q_values(Format::k_dim));
}

// For decode, and for policies that learn from their queries (h2o, hgca, retro_infer). Throws
// bad_argument where a sequence stands twice in a batch: which query comes first would decide the
// result, and two workers would write to one summary. `slots` is scratch.
inline void require_distinct(
    std::span<const attend_request> batch, std::vector<std::uint32_t>& slots,
    const char* who = "attend",
    const char* why = "a method that learns from its queries takes one request a sequence") {
  slots.clear();
  for (const attend_request& r : batch) {
    slots.push_back(r.seq.slot);
  }
  std::sort(slots.begin(), slots.end());
  const auto twice = std::adjacent_find(slots.begin(), slots.end());
  require(twice == slots.end(), [&] {
    return std::string(who) + ": sequence " + std::to_string(*twice) +
           " stands twice in the batch; " + why;
  });
}

// For decode: each request has the queries of `tokens` new tokens, no more and no fewer.
inline void require_query_each(std::size_t queries, std::size_t tokens) {
  require(queries == tokens, [&] {
    return "decode: q must be of the new tokens, one query each, got " + std::to_string(queries) +
           " queries for " + std::to_string(tokens) + " tokens";
  });
}

// For prefill: the number of queries, which are those of the newest of `count` tokens. Throws
// bad_argument unless q is [n, q_heads, k_dim], and out empty or [n, q_heads, v_dim].
template <class Format>
std::size_t prompt_queries(std::size_t q_size, std::size_t out_size, std::size_t count,
                           const model_shape& shape) {
  const std::size_t q_row = shape.q_values(Format::k_dim);
  const std::size_t queries = q_size / q_row;
  require(q_size % q_row == 0 && queries <= count &&
              (out_size == 0 || out_size == queries * shape.q_values(Format::v_dim)),
          [&] {
            return "prefill: q must be [n, " + std::to_string(shape.q_heads) + ", " +
                   std::to_string(Format::k_dim) + "], n at most " + std::to_string(count) +
                   ", and out empty or [n, " + std::to_string(shape.q_heads) + ", " +
                   std::to_string(Format::v_dim) + "], got " + std::to_string(q_size) + " and " +
                   std::to_string(out_size) + " elements";
          });
  return queries;
}

// What a request must fit, of a format and a policy.
struct request_rules {
  std::size_t k_dim;
  std::size_t v_dim;
  bool sees_less;   // the policy can answer a query that does not see the newest tokens
  bool own_window;  // or an order of tokens of its own
};

// Throws bad_argument unless the bias is empty or n times `row` finite values, and unless the
// policy can apply it and the mask.
inline void check_bias_and_mask(const attend_request& r, std::size_t n, std::size_t row,
                                const request_rules& rules) {
  require(!rules.own_window || (r.bias.empty() && r.visible == nullptr), [] {
    return std::string(
        "attend: the attention policy keeps a window or an order of tokens of its own, it takes no bias and no visible set");
  });
  require(r.bias.empty() || r.bias.size() == n * row, [&] {
    return "attend: bias must be empty or " + std::to_string(n) +
           " queries times query heads times live tokens, " + std::to_string(n * row) +
           " values, got " + std::to_string(r.bias.size());
  });
  const auto bad =
      std::find_if(r.bias.begin(), r.bias.end(), [](float x) { return !is_finite(x); });
  require(bad == r.bias.end(), [&] {
    return "attend: bias must be finite, is not at value " + std::to_string(bad - r.bias.begin()) +
           "; tokens are hidden by attend_request::visible";
  });
}

// Throws bad_argument unless a policy can serve the request over `tokens` live tokens.
inline void check_request(const attend_request& r, const model_shape& shape, std::uint32_t tokens,
                          const request_rules& rules) {
  const auto q_heads = static_cast<std::size_t>(shape.q_heads);
  const std::size_t n = r.q.size() / (q_heads * rules.k_dim);
  require(
      n > 0 && r.q.size() == n * q_heads * rules.k_dim && r.out.size() == n * q_heads * rules.v_dim,
      [&] {
        return "attend: q must be [" + std::to_string(q_heads) + ", " +
               std::to_string(rules.k_dim) + "] and out [" + std::to_string(q_heads) + ", " +
               std::to_string(rules.v_dim) + "], or n times that for n queries, got " +
               std::to_string(r.q.size()) + " and " + std::to_string(r.out.size()) + " elements";
      });
  require(r.log_sum_exp.empty() || r.log_sum_exp.size() == n * q_heads, [&] {
    return "attend: log_sum_exp must be empty or [" + std::to_string(n) + ", " +
           std::to_string(q_heads) + "], got " + std::to_string(r.log_sum_exp.size()) + " elements";
  });
  check_bias_and_mask(r, n, q_heads * std::size_t{tokens}, rules);
  require(n == 1 || !r.causal || n <= tokens, [&] {
    return "attend: " + std::to_string(n) +
           " queries need their tokens appended before, there are " + std::to_string(tokens);
  });
  require(n == 1 || !r.causal || rules.sees_less, [&] {
    return "attend: one query a call, got " + std::to_string(n) +
           "; the policy's summaries cannot leave out the tokens after a query's own";
  });
  r.index.validate();
  require(r.index.weights.size() % n == 0, [&] {
    return "attend: the index query must have weights [" + std::to_string(n) +
           ", heads], a row for each query, got " + std::to_string(r.index.weights.size());
  });
}

// q[i] is not finite. `as` says as which type, if q was rounded to one.
[[noreturn]] inline void throw_not_finite(const attend_request& r, std::size_t i,
                                          const model_shape& shape, std::size_t k_dim,
                                          const std::string& as) {
  const auto q_heads = static_cast<std::size_t>(shape.q_heads);
  const std::size_t row = i / k_dim;
  throw bad_argument("attend: q must be finite" + as + ", is not at [" +
                     (r.q.size() > q_heads * k_dim ? "query " + std::to_string(row / q_heads) + ", "
                                                   : std::string()) +
                     "head " + std::to_string(row % q_heads) + ", dim " +
                     std::to_string(i % k_dim) + "]");
}

// Whether a policy can ever answer several new tokens' queries in one call. Summaries that learn
// get the later tokens again after each query, from their rows, which hold no index keys.
template <class Policy, class Summaries>
inline constexpr bool sees_less =
    attention::folds_all_visible<Policy> ||
    (attention::takes_back<Summaries> &&
     !(attention::learns<Summaries> && attention::index_dims<typename Policy::summaries> > 0));

struct goes_back_always {
  bool operator()(std::uint32_t /*tokens*/) const { return true; }
};

// The same, of a policy on a format. Query is the type to which the path rounds q. goes_back(n):
// whether the summaries can leave out the n newest tokens as they are now.
template <class Policy, class Format, class Query = fp32, class GoesBack = goes_back_always>
void check_request(const attend_request& r, const model_shape& shape, std::uint32_t tokens,
                   const GoesBack& goes_back = {}) {
  using summaries = typename Policy::summaries::template states<typename Format::padded>;
  const std::uint32_t n = queries_of<Format>(r, shape);
  check_request(
      r, shape, tokens,
      {.k_dim = Format::k_dim,
       .v_dim = Format::v_dim,
       .sees_less = sees_less<Policy, summaries> && (attention::folds_all_visible<Policy> ||
                                                     n <= 1 || n > tokens || goes_back(n - 1)),
       .own_window = attention::own_window<Policy>});
  const auto finite = [](float x) { return is_finite(from_float<Query>(x)); };
  if (const auto bad = std::ranges::find_if_not(r.q, finite); bad != r.q.end()) [[unlikely]] {
    throw_not_finite(
        r, static_cast<std::size_t>(bad - r.q.begin()), shape, Format::k_dim,
        std::same_as<Query, fp32> ? std::string() : " as " + std::string(element_name<Query>));
  }
}

}  // namespace instinfer
