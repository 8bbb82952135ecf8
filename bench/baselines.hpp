#pragma once
// What one writes without a library: attention over contiguous K and V [kv_heads, tokens, 128] as
// three steps with an array of scores, in Eigen and in plain loops. They share the measure with the
// library: K and V once, error against fp64.

#include <cmath>
#include <random>
#include <vector>

#include <Eigen/Core>

#include <instinfer/codec/element.hpp>

#include "filled_cache.hpp"

namespace instinfer::bench {

inline constexpr int baseline_dim = 128;

// Storage is float, Eigen::half, or fp16 for the plain loops, which convert as they go.
template <class Storage>
class contiguous_cache {
 public:
  using matrix = Eigen::Matrix<Storage, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  explicit contiguous_cache(const shape& s)
      : shape_{s},
        rows_{static_cast<std::size_t>(s.kv_heads) * static_cast<std::size_t>(s.tokens.front())},
        k_(rows_ * baseline_dim),
        v_(rows_ * baseline_dim),
        q_(static_cast<std::size_t>(s.q_heads * baseline_dim)) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<float> values((1u << 20) + 7);  // odd: K and V repeat them at other places
    for (float& x : values) {
      x = normal(random);
    }
    for (std::size_t i = 0; i < k_.size(); ++i) {
      k_[i] = stored(values[i % values.size()]);
      v_[i] = stored(values[(i * 3 + 1) % values.size()]);
    }
    for (float& x : q_) {
      x = normal(random);
    }
  }

  double bytes() const { return static_cast<double>(2 * k_.size() * sizeof(Storage)); }

  std::vector<float> attend(const worker_pool& pool) const {
    std::vector<float> out(q_.size());
    pool.for_each(static_cast<std::size_t>(shape_.kv_heads), [&](std::size_t h, std::size_t) {
      if constexpr (std::is_same_v<Storage, fp16>) {
        by_loops(h, out.data());
      } else {
        by_eigen(h, out.data());
      }
    });
    return out;
  }

  double error(const std::vector<float>& out) const {
    double worst = 0;
    const auto tokens = static_cast<std::size_t>(shape_.tokens.front());
    const auto group = static_cast<std::size_t>(shape_.q_heads / shape_.kv_heads);
    for (std::size_t h = 0; h < static_cast<std::size_t>(shape_.q_heads); ++h) {
      const std::size_t first = h / group * tokens * baseline_dim;
      const float* q = q_.data() + h * baseline_dim;
      reference::row_vector logits(static_cast<Eigen::Index>(tokens));
      for (std::size_t t = 0; t < tokens; ++t) {
        double dot = 0;
        for (std::size_t i = 0; i < baseline_dim; ++i) {
          dot += double{q[i]} * double{loaded(k_[first + t * baseline_dim + i])};
        }
        logits[static_cast<Eigen::Index>(t)] = dot / std::sqrt(double{baseline_dim});
      }
      const reference::row_vector p = reference::softmax(logits);
      reference::row_vector exact = reference::row_vector::Zero(baseline_dim);
      for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t i = 0; i < baseline_dim; ++i) {
          exact[static_cast<Eigen::Index>(i)] +=
              p[static_cast<Eigen::Index>(t)] * double{loaded(v_[first + t * baseline_dim + i])};
        }
      }
      double difference = 0;
      for (std::size_t i = 0; i < baseline_dim; ++i) {
        difference +=
            std::pow(double{out[h * baseline_dim + i]} - exact[static_cast<Eigen::Index>(i)], 2);
      }
      worst = std::max(worst, std::sqrt(difference) / exact.norm());
    }
    return worst;
  }

 private:
  static Storage stored(float x) {
    if constexpr (std::is_same_v<Storage, fp16>) {
      return from_float<fp16>(x);
    } else {
      return static_cast<Storage>(x);
    }
  }
  static float loaded(Storage x) {
    if constexpr (std::is_same_v<Storage, fp16>) {
      return to_float(x);
    } else {
      return static_cast<float>(x);
    }
  }

  // Blocks of 256 tokens are cast to fp32, so that Eigen's products find them in L2.
  void by_eigen(std::size_t h, float* out) const {
    const Eigen::Index tokens = shape_.tokens.front();
    const Eigen::Index group = shape_.q_heads / shape_.kv_heads;
    const auto first = static_cast<Eigen::Index>(h) * tokens * baseline_dim;
    const Eigen::Map<const floats> q(
        q_.data() + static_cast<Eigen::Index>(h) * group * baseline_dim, group, baseline_dim);
    const Eigen::Map<const matrix> k(k_.data() + first, tokens, baseline_dim);
    const Eigen::Map<const matrix> v(v_.data() + first, tokens, baseline_dim);
    const Eigen::Index block = std::is_same_v<Storage, float> ? tokens : 256;
    floats scores(group, tokens);
    for (Eigen::Index t = 0; t < tokens; t += block) {
      const Eigen::Index n = std::min(block, tokens - t);
      scores.middleCols(t, n).noalias() = q *
                                          k.middleRows(t, n).template cast<float>().transpose() /
                                          std::sqrt(static_cast<float>(baseline_dim));
    }
    for (Eigen::Index g = 0; g < group; ++g) {
      scores.row(g) = (scores.row(g).array() - scores.row(g).maxCoeff()).exp().matrix();
      scores.row(g) /= scores.row(g).sum();
    }
    Eigen::Map<floats> o(out + static_cast<Eigen::Index>(h) * group * baseline_dim, group,
                         baseline_dim);
    o.setZero();
    for (Eigen::Index t = 0; t < tokens; t += block) {
      const Eigen::Index n = std::min(block, tokens - t);
      o.noalias() += scores.middleCols(t, n) * v.middleRows(t, n).template cast<float>();
    }
  }

  // One query head after the other, element by element.
  void by_loops(std::size_t h, float* out) const {
    const auto tokens = static_cast<std::size_t>(shape_.tokens.front());
    const auto group = static_cast<std::size_t>(shape_.q_heads / shape_.kv_heads);
    const std::size_t first = h * tokens * baseline_dim;
    std::vector<float> scores(tokens);
    for (std::size_t head = h * group; head < (h + 1) * group; ++head) {
      const float* q = q_.data() + head * baseline_dim;
      float max = -std::numeric_limits<float>::infinity();
      for (std::size_t t = 0; t < tokens; ++t) {
        float dot = 0;
        for (std::size_t i = 0; i < baseline_dim; ++i) {
          dot += q[i] * loaded(k_[first + t * baseline_dim + i]);
        }
        scores[t] = dot / std::sqrt(static_cast<float>(baseline_dim));
        max = std::max(max, scores[t]);
      }
      float sum = 0;
      for (float& s : scores) {
        s = std::exp(s - max);
        sum += s;
      }
      float* o = out + head * baseline_dim;
      std::fill_n(o, baseline_dim, 0.0f);
      for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t i = 0; i < baseline_dim; ++i) {
          o[i] += scores[t] / sum * loaded(v_[first + t * baseline_dim + i]);
        }
      }
    }
  }

  shape shape_;
  std::size_t rows_;
  std::vector<Storage> k_;  // [kv_heads, tokens, 128]
  std::vector<Storage> v_;
  std::vector<float> q_;  // [q_heads, 128]
};

}  // namespace instinfer::bench
