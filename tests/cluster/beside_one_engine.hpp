#pragma once
// The same calls to a cluster and to one engine, and their results side by side.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <sstream>
#include <vector>

#include "instinfer/mpi.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test {

inline int world_size() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}
inline int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

// Calls body on the host, and serves on the others. The destructor closes what body has not.
template <class Cluster, class Body>
void on_host(Cluster& c, Body&& body) {
  if (c.is_host()) {
    body();
  } else {
    c.serve();
  }
}

// Both sides of one sequence.
struct both {
  sequence many;
  sequence one;
};

// Results may differ by `tolerance` times the largest; 0 asks for equal bits, and for equal traffic
// of pages and link.
template <class Cluster, class Engine>
class beside_one_engine {
  using element = typename Cluster::element;
  static constexpr std::size_t dim = Cluster::format::k_dim;

 public:
  beside_one_engine(Cluster& many, Engine& one, unsigned seed, double tolerance = 0)
      : many_{many}, one_{one}, shape_{many.shape()}, tolerance_{tolerance}, random_{seed} {}

  both open() { return {many_.open(), one_.open()}; }
  both fork(both s) { return {many_.fork(s.many), one_.fork(s.one)}; }

  void append(both s, int layer, std::size_t tokens) {
    const std::vector<element> k = rows(tokens, 1.5f);
    const std::vector<element> v = rows(tokens, 1.0f);
    const traffic m = many_.append(s.many, layer, k, v).traffic;
    const traffic o = one_.append(s.one, layer, k, v).traffic;
    CHECK(m.link_bytes == o.link_bytes);
    if (tolerance_ == 0) {
      CHECK(m == o);
    }
    check_counts(s, layer);
  }
  void append_all(both s, std::size_t tokens) {
    for (int l = 0; l < shape_.layers; ++l) {
      append(s, l, tokens);
    }
  }

  // `queries` newest tokens of each sequence; on request with random biases, and seeing about two
  // tokens of three. Returns the traffic of the cluster.
  traffic attend(const std::vector<both>& batch, int layer, std::size_t queries, bool causal = true,
                 bool masked = false) {
    const std::size_t heads = queries * static_cast<std::size_t>(shape_.q_heads);
    std::vector<float> q(batch.size() * heads * dim);
    for (float& x : q) {
      x = normal_(random_);
    }
    results mine(batch.size(), heads), theirs(batch.size(), heads);
    std::vector<attend_request> to_many, to_one;
    std::vector<std::vector<float>> biases(batch.size());
    std::vector<index_set> visible(batch.size());
    for (std::size_t r = 0; r < batch.size(); ++r) {
      const auto part = std::span(q).subspan(r * heads * dim, heads * dim);
      to_many.push_back(mine.request(batch[r].many, part, r, causal));
      to_one.push_back(theirs.request(batch[r].one, part, r, causal));
      if (masked) {
        biases[r].resize(heads * one_.tokens(batch[r].one, layer));
        for (float& x : biases[r]) {
          x = normal_(random_);
        }
        const auto end = static_cast<std::uint32_t>(one_.positions(batch[r].one, layer));
        for (std::uint32_t p = 0; p < end; p += 3) {
          const auto first = static_cast<std::uint32_t>(p + random_() % 3);
          visible[r].add(std::min(first, end), std::min(p + 3, end));
        }
        to_many.back().bias = to_one.back().bias = biases[r];
        to_many.back().visible = to_one.back().visible = &visible[r];
      }
    }
    const traffic m = many_.attend(to_many, layer).traffic;
    const traffic o = one_.attend(to_one, layer, scratch_, parallel::serial{}).traffic;
    check_close(mine.out, theirs.out);
    check_close(mine.lse, theirs.lse);
    if (tolerance_ == 0) {
      CHECK(m == o);
    }
    return m;
  }

  void decode(both s, int layer, std::size_t tokens) {
    const std::vector<element> k = rows(tokens, 1.5f);
    const std::vector<element> v = rows(tokens, 1.0f);
    std::vector<float> q(tokens * static_cast<std::size_t>(shape_.q_heads) * dim);
    for (float& x : q) {
      x = normal_(random_);
    }
    std::vector<float> mine(q.size()), theirs(q.size());
    const traffic m = many_.decode(s.many, layer, k, v, q, mine).traffic;
    const traffic o = one_.decode(s.one, layer, k, v, q, theirs).traffic;
    check_close(mine, theirs);
    if (tolerance_ == 0) {
      CHECK(m == o);
    }
    check_counts(s, layer);
    q.front() = std::numeric_limits<float>::infinity();
    CHECK_THROWS_AS(many_.decode(s.many, layer, k, v, q, mine), bad_argument);
    check_counts(s, layer);
  }

  // `queries` newest tokens of the prompt, which may be none; with or without outputs.
  void prefill(both s, int layer, std::size_t tokens, std::size_t queries, bool outputs = true) {
    const std::vector<element> k = rows(tokens, 1.5f);
    const std::vector<element> v = rows(tokens, 1.0f);
    std::vector<float> q(queries * static_cast<std::size_t>(shape_.q_heads) * dim);
    for (float& x : q) {
      x = normal_(random_);
    }
    std::vector<float> mine(outputs ? q.size() : 0), theirs(mine.size());
    const traffic m = many_.prefill(s.many, layer, k, v, q, mine).traffic;
    const traffic o = one_.prefill(s.one, layer, k, v, q, theirs).traffic;
    check_close(mine, theirs);
    CHECK(m.link_bytes == o.link_bytes);
    if (tolerance_ == 0) {
      CHECK(m == o);
    }
    check_counts(s, layer);
  }

  template <class Policy>
  void set_policy(const Policy& attention) {
    many_.set_policy(attention);
    one_.set_policy(attention);
  }

  // Saves `from` on both sides, and loads each side's file on the other one.
  void move_to(both from, both to) {
    std::stringstream mine, theirs;
    many_.save(from.many, mine, "tiny");
    one_.save(from.one, theirs, "tiny");
    if (tolerance_ == 0) {
      CHECK(mine.view() == theirs.view());
    }
    const traffic m = many_.load(to.many, theirs, "tiny").traffic;
    const traffic o = one_.load(to.one, mine, "tiny").traffic;
    CHECK(m.pages_written == o.pages_written);
    for (int l = 0; l < shape_.layers; ++l) {
      check_counts(to, l);
    }
  }

  template <class... Arguments>
  void reclaim(both s, const Arguments&... what) {
    many_.reclaim(s.many, what...);
    one_.reclaim(s.one, what...);
  }
  void truncate(both s, std::uint64_t tokens) {
    many_.truncate(s.many, tokens);
    one_.truncate(s.one, tokens);
    check_counts(s, 0);
  }
  void check_counts(both s, int layer) {
    CHECK(many_.tokens(s.many, layer) == one_.tokens(s.one, layer));
    CHECK(many_.positions(s.many, layer) == one_.positions(s.one, layer));
  }

  std::vector<element> rows(std::size_t tokens, float size) {
    std::vector<element> x(tokens * static_cast<std::size_t>(shape_.kv_heads) * dim);
    for (element& e : x) {
      e = from_float<element>(size * normal_(random_));
    }
    return x;
  }

 private:
  struct results {
    results(std::size_t requests, std::size_t heads_)
        : heads{heads_}, out(requests * heads * dim, 7.0f), lse(requests * heads, 7.0f) {}
    // Every second request asks for its log-sum-exp.
    attend_request request(sequence seq, std::span<const float> q, std::size_t r, bool causal) {
      attend_request a{
          .seq = seq, .q = q, .out = std::span(out).subspan(r * heads * dim, heads * dim)};
      a.causal = causal;
      if (r % 2 == 0) {
        a.log_sum_exp = std::span(lse).subspan(r * heads, heads);
      }
      return a;
    }
    std::size_t heads;
    std::vector<float> out, lse;
  };

  void check_close(const std::vector<float>& mine, const std::vector<float>& theirs) const {
    if (tolerance_ == 0) {
      CHECK(mine == theirs);
      return;
    }
    double worst = 0, largest = 0;
    for (std::size_t i = 0; i < mine.size(); ++i) {
      if (mine[i] == theirs[i]) {  // also -inf
        continue;
      }
      worst =
          std::max(worst, std::abs(static_cast<double>(mine[i]) - static_cast<double>(theirs[i])));
      largest = std::max(largest, std::abs(static_cast<double>(theirs[i])));
    }
    CHECK(worst <= tolerance_ * std::max(largest, 1.0));
  }

  Cluster& many_;
  Engine& one_;
  model_shape shape_;
  double tolerance_;
  std::mt19937 random_;
  normal_distribution normal_;
  typename Engine::scratch scratch_;
};

}  // namespace instinfer::test
