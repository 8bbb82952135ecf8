#pragma once
// Synthetic KV caches and queries with the structure that selection methods live on, for tests and
// comparisons:
//
//   topics            runs of tokens on one of many topics; each query asks for one
//   shuffled          the same tokens in random order: pages lose their meaning, clusters do not
//   hitter_stream     a query for every token, and a few keys that all queries want: what
//                     history-based methods hope for
//   switching_stream  every fourth query goes back to an earlier topic: what they cannot foresee
//   index_topics      keys, query heads and head weights of an indexer, as DSA and MISA have
//
// Everything follows from a seed, the same values with every compiler: std::mt19937_64, a
// Box-Muller transform of our own, and sums that do not depend on fused multiply-adds.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>
#include <span>
#include <utility>
#include <vector>

namespace instinfer::workload {

// One KV head, one query head.
struct sample {
  int dim = 0;
  std::vector<float> k;                    // [tokens, dim]
  std::vector<float> v;                    // [tokens, dim]
  std::vector<float> q;                    // [queries, dim]
  std::vector<std::uint32_t> token_topic;  // [tokens]
  std::vector<std::uint32_t> query_topic;  // [queries]

  int tokens() const { return static_cast<int>(token_topic.size()); }
  int queries() const { return static_cast<int>(query_topic.size()); }
};

// k = key_weight u + key_noise n + offset, v = 0.7 mu + 0.5 n, q = query_weight u + 0.5 n, where u
// is the topic's unit direction, mu a normal vector of the topic, n standard normal, and the offset
// one normal vector times `offset`.
struct topics {
  int tokens = 8192;
  int dim = 64;
  int topic_count = 64;
  int queries = 32;
  int mean_run = 24;  // tokens; lengths are geometric
  float key_weight = 6;
  float query_weight = 12;
  float key_noise = 0.5f;
  float offset = 0;
  // Of seeds 1 to 8 the one whose errors and masses are nearest to the mean of all.
  std::uint64_t seed = 5;

  sample operator()() const;
};

// A query for every token, of the token's own topic unless the stream says otherwise.
struct hitter_stream {
  int tokens = 6144;
  // This share of the keys gets `strength` along a direction that all queries have, equally strong.
  float share = 0.03f;
  float strength = 8;
  float query_weight = 6;
  std::uint64_t seed = 1;

  sample operator()() const;
};
struct switching_stream {
  int tokens = 6144;
  float query_weight = 12;
  int jump_every = 4;  // queries: one of so many asks for the topic of a random earlier token
  std::uint64_t seed = 1;

  sample operator()() const;
};

// Keys in runs of 32 tokens, 3 u + 0.3 n; a query head is 0.6 n and, every second one, 4 u of any
// topic; its weight is e^(1.2 n), every fourth times -0.3.
struct index_sample {
  int dim = 0;
  int heads = 0;
  std::vector<float> keys{};     // [tokens, dim]
  std::vector<float> q{};        // [queries, heads, dim]
  std::vector<float> weights{};  // [queries, heads]
};
struct index_topics {
  int tokens = 8192;
  int dim = 128;
  int heads = 64;
  int topic_count = 40;
  int queries = 12;
  std::uint64_t seed = 1;

  index_sample operator()() const;
};

namespace detail {

class random_source {
 public:
  explicit random_source(std::uint64_t seed) : bits_{seed} {}

  double uniform() { return static_cast<double>(bits_() >> 11) * 0x1p-53; }  // [0, 1)
  std::uint32_t below(std::size_t n) {
    return static_cast<std::uint32_t>(uniform() * static_cast<double>(n));
  }
  float normal() {
    if (std::exchange(has_spare_, !has_spare_)) {
      return spare_;
    }
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    const double angle = 2.0 * std::numbers::pi * uniform();
    spare_ = static_cast<float>(radius * std::sin(angle));
    return static_cast<float>(radius * std::cos(angle));
  }
  std::uint32_t geometric(int mean) {  // 1, 2, ...
    const double more = std::log(1.0 - uniform()) / std::log(1.0 - 1.0 / mean);
    return 1 + static_cast<std::uint32_t>(more);
  }

  std::vector<float> normals(int rows, int dim) {
    std::vector<float> x(static_cast<std::size_t>(rows) * static_cast<std::size_t>(dim));
    std::ranges::generate(x, [&] { return normal(); });
    return x;
  }
  std::vector<float> directions(int rows, int dim) {  // unit vectors
    std::vector<float> x = normals(rows, dim);
    for (auto row = x.begin(); row != x.end(); row += dim) {
      double square = 0;
      for (auto value = row; value != row + dim; ++value) {
        square += static_cast<double>(*value) * static_cast<double>(*value);
      }
      for (auto value = row; value != row + dim; ++value) {
        *value = static_cast<float>(static_cast<double>(*value) / std::sqrt(square));
      }
    }
    return x;
  }

 private:
  std::mt19937_64 bits_;
  float spare_ = 0;
  bool has_spare_ = false;
};

inline std::span<const float> row(const std::vector<float>& x, std::size_t r, int dim) {
  return std::span(x).subspan(r * static_cast<std::size_t>(dim), static_cast<std::size_t>(dim));
}

// a x + b y + c z, rounded to float. The products are exact in double, so fused and separate
// multiply-adds agree.
inline float blend(float a, float x, float b, float y, float c = 0, float z = 0) {
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(x) +
                            static_cast<double>(b) * static_cast<double>(y) +
                            static_cast<double>(c) * static_cast<double>(z));
}

// Topics with the tokens' part drawn, and the means to draw queries.
struct topic_source {
  topic_source(const topics& how_)
      : how{how_}, random{how_.seed}, direction{random.directions(how.topic_count, how.dim)} {
    s.dim = how.dim;
    const std::vector<float> mean_value = random.normals(how.topic_count, how.dim);
    const std::vector<float> offset = random.normals(1, how.dim);
    const auto n = static_cast<std::size_t>(how.tokens);
    while (s.token_topic.size() < n) {
      const std::uint32_t topic = random.below(static_cast<std::size_t>(how.topic_count));
      const std::size_t run =
          std::min<std::size_t>(random.geometric(how.mean_run), n - s.token_topic.size());
      s.token_topic.insert(s.token_topic.end(), run, topic);
    }
    for (const std::uint32_t topic : s.token_topic) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(how.dim); ++i) {
        s.k.push_back(blend(how.key_weight, row(direction, topic, how.dim)[i], how.key_noise,
                            random.normal(), how.offset, offset[i]));
        s.v.push_back(blend(0.7f, row(mean_value, topic, how.dim)[i], 0.5f, random.normal()));
      }
    }
  }

  void add_query(std::uint32_t topic) {
    s.query_topic.push_back(topic);
    for (const float u : row(direction, topic, how.dim)) {
      s.q.push_back(blend(how.query_weight, u, 0.5f, random.normal()));
    }
  }

  topics how;
  random_source random;
  std::vector<float> direction;  // [topics, dim]
  sample s;
};

}  // namespace detail

inline sample topics::operator()() const {
  detail::topic_source source(*this);
  for (int i = 0; i < queries; ++i) {
    source.add_query(source.random.below(static_cast<std::size_t>(topic_count)));
  }
  return source.s;
}

inline sample shuffled(const sample& s, std::uint64_t seed = 1) {
  detail::random_source random(seed);
  sample mixed = s;
  std::vector<std::uint32_t> from(s.token_topic.size());
  for (std::uint32_t i = 0; i < from.size(); ++i) {  // Fisher and Yates, inside out
    const std::uint32_t j = random.below(i + 1);
    from[i] = from[j];
    from[j] = i;
  }
  const auto d = static_cast<std::size_t>(s.dim);
  for (std::size_t to = 0; to < from.size(); ++to) {
    mixed.token_topic[to] = s.token_topic[from[to]];
    std::ranges::copy(detail::row(s.k, from[to], s.dim), &mixed.k[to * d]);
    std::ranges::copy(detail::row(s.v, from[to], s.dim), &mixed.v[to * d]);
  }
  return mixed;
}

inline sample hitter_stream::operator()() const {
  detail::topic_source source({.tokens = tokens, .query_weight = query_weight, .seed = seed});
  sample& s = source.s;
  const std::vector<float> wanted = source.random.directions(1, s.dim);
  for (std::size_t t = 0; t < s.token_topic.size(); ++t) {
    source.add_query(s.token_topic[t]);
    const bool hitter = source.random.uniform() < static_cast<double>(share);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const std::size_t at = t * wanted.size() + i;
      s.q[at] = detail::blend(1, s.q[at], strength, wanted[i]);
      s.k[at] = detail::blend(1, s.k[at], hitter ? strength : 0.0f, wanted[i]);
    }
  }
  return s;
}

inline sample switching_stream::operator()() const {
  detail::topic_source source({.tokens = tokens, .query_weight = query_weight, .seed = seed});
  sample& s = source.s;
  for (std::size_t t = 0; t < s.token_topic.size(); ++t) {
    const bool jump = t % static_cast<std::size_t>(jump_every) == 0;
    source.add_query(s.token_topic[jump ? source.random.below(t + 1) : t]);
  }
  return s;
}

inline index_sample index_topics::operator()() const {
  detail::random_source random(seed);
  const std::vector<float> direction = random.directions(topic_count, dim);
  const auto any = [&] {
    return detail::row(direction, random.below(static_cast<std::size_t>(topic_count)), dim);
  };
  index_sample s{.dim = dim, .heads = heads};
  for (int t = 0; t < tokens; t += 32) {
    const std::span<const float> u = any();
    for (int i = 0; i < std::min(32, tokens - t); ++i) {
      for (const float x : u) {
        s.keys.push_back(detail::blend(3, x, 0.3f, random.normal()));
      }
    }
  }
  for (int head = 0; head < queries * heads; ++head) {
    const float topic_weight = random.uniform() < 0.5 ? 4.0f : 0.0f;
    for (const float x : any()) {
      s.q.push_back(detail::blend(topic_weight, x, 0.6f, random.normal()));
    }
    const double weight = std::exp(1.2 * static_cast<double>(random.normal()));
    s.weights.push_back(static_cast<float>(random.uniform() < 0.25 ? -0.3 * weight : weight));
  }
  return s;
}

}  // namespace instinfer::workload
