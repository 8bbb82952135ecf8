#pragma once
// A cache of one layer filled with random values, its queries, and the exact answer to them.

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <instinfer/core/index_algebra.hpp>
#include <instinfer/cpu.hpp>
#include <instinfer/reference.hpp>

#include "gather_probe.hpp"
#include "worker_pool.hpp"

namespace instinfer::bench {

struct shape {
  int q_heads;
  int kv_heads;
  std::vector<int> tokens;  // of each sequence of the batch
  int queries = 1;          // new tokens that attend at once

  friend bool operator==(const shape&, const shape&) = default;

  std::string name(int head_dim = 128) const {
    std::string text = "q" + std::to_string(q_heads) + "_kv" + std::to_string(kv_heads) + "/d" +
                       std::to_string(head_dim) + "/t";
    for (std::size_t i = 0; i < tokens.size();) {  // 7 sequences of 1024 tokens: 7x1024
      std::size_t n = 1;
      while (i + n < tokens.size() && tokens[i + n] == tokens[i]) {
        ++n;
      }
      text += (i > 0 ? "+" : "") + (n > 1 ? std::to_string(n) + "x" : std::string()) +
              std::to_string(tokens[i]);
      i += n;
    }
    return text + (queries > 1 ? "/n" + std::to_string(queries) : "");
  }
  double all_tokens() const {
    double n = 0;
    for (const int t : tokens) {
      n += t;
    }
    return n;
  }
};

// Path: the arithmetic that is measured.
template <class D, class Format, class Path = cpu::path>
class filled_cache {
 public:
  using engine_type = instinfer::engine<D, Format, Path>;
  using element = typename Format::element;

  filled_cache(const shape& s, const typename D::attention_policy& policy)
      : shape_{s},
        engine_({.layers = 1, .q_heads = s.q_heads, .kv_heads = s.kv_heads},
                {.bytes = static_cast<std::uint64_t>(s.all_tokens() * s.kv_heads *
                                                     Format::token_bytes * 1.75) +
                          (64u << 20),
                 .context_tokens = static_cast<std::uint32_t>(s.tokens.front())},
                policy) {
    std::normal_distribution<float> normal;
    std::mt19937 random(1);
    // A long random vector, appended from a new offset each time. New random values take minutes at
    // 128 K tokens.
    std::vector<element> values(1u << 23);
    for (element& x : values) {
      x = from_float<element>(normal(random));
    }
    const auto row = static_cast<std::size_t>(s.kv_heads * Format::k_dim);
    // 1024 tokens of 32 heads at a time, as prompts come.
    const int chunk = (1 << 22) / static_cast<int>(row);
    for (const int tokens : s.tokens) {
      const sequence seq = engine_.open();
      for (int t = 0; t < tokens; t += chunk) {
        const std::size_t n = static_cast<std::size_t>(std::min(chunk, tokens - t)) * row;
        const auto draw = [&] {
          return std::span(values).subspan(random() % (values.size() - n), n);
        };
        const auto k = draw();
        if constexpr (Format::latent) {
          engine_.append(seq, 0, k);
        } else {
          engine_.append(seq, 0, k, draw());
        }
      }
      std::vector<float>& q = q_.emplace_back(out_size() / Format::v_dim * Format::k_dim);
      for (float& x : q) {
        x = normal(random);
      }
      requests_.push_back({seq, q, {}});
    }
  }

  const shape& of() const { return shape_; }
  const typename D::attention_policy& policy() const { return engine_.attention(); }
  // Elements of one request's output.
  std::size_t out_size() const {
    return static_cast<std::size_t>(shape_.queries * shape_.q_heads * Format::v_dim);
  }
  double bytes() const {  // K and V once
    return shape_.all_tokens() * shape_.kv_heads * Format::token_bytes;
  }

  using outputs = std::vector<std::vector<float>>;
  outputs make_outputs() const { return outputs(requests_.size(), std::vector<float>(out_size())); }

  void attend(outputs& out, const worker_pool& pool) {
    for (std::size_t r = 0; r < out.size(); ++r) {
      requests_[r].out = out[r];
    }
    engine_.attend(requests_, 0, scratch_, pool);
  }

  // Any policy with any path's arithmetic on the same pages, one head after another. watch(request,
  // kv_head) is the observer of a head.
  template <class On, class Policy, class Watch>
  void attend_as(const Policy& policy, outputs& out, const worker_pool& pool, Watch&& watch) const {
    workspace<On, Format> work;
    work.workers.resize(pool.workers());
    const auto heads = static_cast<std::size_t>(shape_.kv_heads);
    for (std::size_t r = 0; r < out.size(); ++r) {
      const auto& layer = engine_.cache().at(requests_[r].seq, 0);
      pool.for_each(heads, [&](std::size_t h, std::size_t w) {
        traffic moved;
        auto observer = watch(r, h);
        const head_attend head(policy, engine_.logits(), engine_.cache(), layer, 0,
                               static_cast<std::uint32_t>(h), requests_[r], work.workers[w], moved);
        head(static_cast<std::uint32_t>(shape_.queries), out[r], {}, observer);
      });
    }
  }
  template <class On, class Policy>
  void attend_as(const Policy& policy, outputs& out, const worker_pool& pool) const {
    attend_as<On>(policy, out, pool,
                  [](std::size_t, std::size_t) { return attention::no_observer{}; });
  }

  // What the engine's policy reads, head after head.
  std::vector<piece> pieces(const worker_pool& pool) const {
    std::vector<std::vector<piece>> of_heads(heads());
    outputs out = make_outputs();
    attend_as<cpu::path>(engine_.attention(), out, pool, [&](std::size_t r, std::size_t h) {
      return piece_recorder<Format>{
          engine_.cache().pages(),
          engine_.cache().at(requests_[r].seq, 0).head(static_cast<std::uint32_t>(h)),
          &of_heads[at(r, h)]};
    });
    std::vector<piece> all;
    for (const std::vector<piece>& of : of_heads) {
      all.insert(all.end(), of.begin(), of.end());
    }
    return all;
  }

  // The largest relative error of a query head, in the 2-norm, against fp64 on what was stored. If
  // scores are so close that fp32 and fp64 rank them differently, both answers are right and cannot
  // be compared: such heads are left out. Infinite if the selections of one head differ in more
  // than 1 of 1000 tokens, or those of half the heads differ at all.
  double error(const worker_pool& pool) {
    outputs mine = make_outputs();
    outputs exact = make_outputs();
    std::vector<index_set> my_tokens(heads());
    std::vector<index_set> exact_tokens(heads());
    const auto into = [&](std::vector<index_set>& sets) {
      return [&](std::size_t r, std::size_t h) { return selection_recorder{&sets[at(r, h)]}; };
    };
    attend_as<Path>(engine_.attention(), mine, pool, into(my_tokens));
    attend(mine, pool);
    attend_as<reference::path>(engine_.attention(), exact, pool, into(exact_tokens));
    const std::size_t group_size =
        static_cast<std::size_t>(shape_.q_heads / shape_.kv_heads * Format::v_dim);
    double worst = 0;
    std::size_t unlike = 0;
    for (std::size_t r = 0; r < mine.size(); ++r) {
      for (std::size_t head = 0; head < out_size(); head += Format::v_dim) {
        const std::size_t of = at(r, head / group_size % static_cast<std::size_t>(shape_.kv_heads));
        index_set missing;
        add_difference(exact_tokens[of], my_tokens[of], missing);
        if (missing.count() > 0) {
          unlike += 1;
          if (missing.count() > 1 + exact_tokens[of].count() / 1000 ||
              2 * unlike > mine.size() * out_size() / Format::v_dim) {
            return std::numeric_limits<double>::infinity();
          }
          continue;
        }
        double difference = 0;
        double norm = 0;
        for (std::size_t i = head; i < head + Format::v_dim; ++i) {
          const auto e = static_cast<double>(exact[r][i]);
          difference += std::pow(static_cast<double>(mine[r][i]) - e, 2);
          norm += e * e;
        }
        worst = std::max(worst, std::sqrt(difference / norm));
      }
    }
    return worst;
  }

 private:
  // KV heads of all requests, and the number of one of them.
  std::size_t heads() const { return at(requests_.size(), 0); }
  std::size_t at(std::size_t request, std::size_t kv_head) const {
    return request * static_cast<std::size_t>(shape_.kv_heads) + kv_head;
  }

  // Keeps the tokens that a selection kept.
  struct selection_recorder {
    index_set* to;
    void chose(attention::operation op, index_view tokens) {
      if (op == attention::operation::top_tokens) {
        to->clear();
        for (const index_run run : tokens.runs()) {
          to->add(run.first, run.last);
        }
      }
    }
    void accessed(attention::operation, const access_plan&) {}
  };

  shape shape_;
  engine_type engine_;
  typename engine_type::scratch scratch_;
  outputs q_;  // [requests][queries, q_heads, k_dim]
  std::vector<attend_request> requests_;
};

}  // namespace instinfer::bench
