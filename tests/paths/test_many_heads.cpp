// The fold of many heads over rows of bf16, against the definition in fp64: groups that do and do
// not fill tiles of 16 heads, any number of tokens, soft cap, biases, masks, large values. Where
// the processor has no matrix tiles, the fold by rows passes the same test.

#include <doctest/doctest.h>

#include <limits>

#include "cpu/kernel_checks.hpp"
#include "instinfer/cpu.hpp"
#include "instinfer/cpu/fold/matrix_fold-inl.hpp"
#include "tests/support/normals.hpp"

using namespace instinfer;
using namespace instinfer::test;

namespace {

// A query, and the rows of one KV head.
template <class Format>
struct many_heads {
  static constexpr std::size_t k_dim = Format::k_dim;
  static constexpr std::size_t v_dim = Format::v_dim;
  std::size_t tokens, heads;
  std::vector<bf16> k, v;
  std::vector<float> q;

  many_heads(unsigned seed, std::size_t tokens_, std::size_t heads_, float logits = 1.0f)
      : tokens{tokens_}, heads{heads_} {
    std::mt19937 random(seed);
    normal_distribution normal;
    const auto rows = [&](std::size_t n) {
      std::vector<bf16> x(n);
      std::ranges::generate(x, [&] { return from_float<bf16>(normal(random)); });
      return x;
    };
    k = rows(tokens * k_dim);
    v = Format::latent ? std::vector<bf16>{} : rows(tokens * v_dim);
    q.resize(heads * k_dim);
    std::ranges::generate(q, [&] { return logits * normal(random); });
  }
  double value(std::size_t t, std::size_t d) const {
    return as_double(to_float(Format::latent ? k[t * k_dim + d] : v[t * v_dim + d]));
  }

  // Attention and log-sum-exp of a head, with logit(product, t) for the tokens that shown(t).
  template <class Logit, class Shown>
  std::pair<std::vector<double>, double> exact(std::size_t h, Logit logit, Shown shown) const {
    std::vector<double> logits(tokens), out(v_dim);
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::size_t t = 0; t < tokens; ++t) {
      double product = 0;
      for (std::size_t d = 0; d < k_dim; ++d) {
        product += as_double(q[h * k_dim + d]) * as_double(to_float(k[t * k_dim + d]));
      }
      logits[t] = logit(product / std::sqrt(static_cast<double>(k_dim)), t);
      max = shown(t) ? std::max(max, logits[t]) : max;
    }
    for (std::size_t t = 0; t < tokens; ++t) {
      const double p = shown(t) ? std::exp(logits[t] - max) : 0.0;
      sum += p;
      for (std::size_t d = 0; d < v_dim; ++d) {
        out[d] += p * value(t, d);
      }
    }
    for (double& x : out) {
      x /= sum;
    }
    return {out, max + std::log(sum)};
  }
  std::pair<std::vector<double>, double> plain(std::size_t h) const {
    return exact(h, [](double x, std::size_t) { return x; }, [](std::size_t) { return true; });
  }
};

template <class Format, cpu::tuning T = cpu::tuning{}>
class decoder {
 public:
  decoder(const many_heads<Format>& data, const logit_rule& logits)
      : engine_({.layers = 1, .q_heads = static_cast<int>(data.heads), .kv_heads = 1},
                {.context_tokens = 4096}, {}, logits) {
    if constexpr (Format::latent) {
      engine_.append(seq_, 0, data.k);
    } else {
      engine_.append(seq_, 0, data.k, data.v);
    }
  }
  void attend(std::span<const float> q, std::span<float> out, std::span<float> log_sum_exp,
              const index_set* visible) {
    const attend_request request{
        .seq = seq_, .q = q, .out = out, .log_sum_exp = log_sum_exp, .visible = visible};
    engine_.attend({&request, 1}, 0, scratch_, parallel::serial{});
  }

 private:
  using engine = cpu::engine<insta, Format, T>;
  engine engine_;
  sequence seq_ = engine_.open();
  typename engine::scratch scratch_;
};

double distance(std::span<const float> got, const std::vector<double>& exact) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += std::pow(as_double(got[i]) - exact[i], 2);
    norm += exact[i] * exact[i];
  }
  return std::sqrt(error / norm);
}

using rows = kv_format<bf16, 64, 32>;
using latent = latent_format<bf16, 96, 64>;  // 21 rows a page: blocks of rows cross pages

}  // namespace

TEST_CASE_TEMPLATE("any number of heads and tokens", format, rows, latent) {
  MESSAGE("matrix tiles: ", cpu::folds_by_matrix<format> && cpu::matrix_tiles_allowed());
  struct size {
    unsigned heads, tokens;
  };
  for (const size s :
       {size{16, 1}, {16, 63}, {20, 64}, {33, 65}, {16, 1024}, {48, 1100}, {15, 130}}) {
    const unsigned heads = s.heads, tokens = s.tokens;
    CAPTURE(heads);
    CAPTURE(tokens);
    const many_heads<format> data(7 * heads + tokens, tokens, heads, 3.0f);
    decoder<format> engine(data, {});
    std::vector<float> out(heads * data.v_dim), log_sum_exp(heads);
    engine.attend(data.q, out, log_sum_exp, nullptr);
    double worst = 0;
    for (std::size_t h = 0; h < heads; ++h) {
      const auto [exact, total] = data.plain(h);
      worst = std::max(worst, distance(std::span(out).subspan(h * data.v_dim, data.v_dim), exact));
      CHECK(as_double(log_sum_exp[h]) == doctest::Approx(total).epsilon(1e-6));
    }
    CHECK(worst < 2e-6);
  }
}

TEST_CASE("few tokens after many, with smaller logits") {
  constexpr std::size_t heads = 16;
  const many_heads<rows> data(4, 200, heads);
  decoder<rows> engine(data, {});
  std::vector<float> out(heads * rows::v_dim), log_sum_exp(heads), larger(data.q);
  std::ranges::transform(larger, larger.begin(), [](float x) { return 500.0f * x; });
  engine.attend(larger, out, log_sum_exp, nullptr);
  index_set visible;
  visible.add(0, 40);
  engine.attend(data.q, out, log_sum_exp, &visible);
  for (std::size_t h = 0; h < heads; ++h) {
    const auto exact =
        data.exact(
                h, [](double x, std::size_t) { return x; }, [](std::size_t t) { return t < 40; })
            .first;
    CHECK(distance(std::span(out).subspan(h * rows::v_dim, rows::v_dim), exact) < 2e-6);
  }
}

// An error of 2^-9 in each of q and the weights, of which sums keep a part.
TEST_CASE("one part of bf16 is as exact as bf16") {
  constexpr std::size_t heads = 32;
  const many_heads<rows> data(3, 500, heads);
  decoder<rows, cpu::tuning{.matrix_parts = 1}> engine(data, {});
  std::vector<float> out(heads * rows::v_dim), log_sum_exp(heads);
  engine.attend(data.q, out, log_sum_exp, nullptr);
  double worst = 0;
  for (std::size_t h = 0; h < heads; ++h) {
    const auto exact = data.plain(h).first;
    worst = std::max(worst, distance(std::span(out).subspan(h * rows::v_dim, rows::v_dim), exact));
  }
  const bool rounded = cpu::folds_by_matrix<rows> && cpu::matrix_tiles_allowed();
  CHECK(worst < (rounded ? 0x1p-8 : 2e-6));
  CHECK((worst > 1e-4) == rounded);
}

TEST_CASE("soft cap, slopes and a mask with holes") {
  constexpr std::size_t heads = 18;
  const many_heads<latent> data(5, 300, heads, 2.0f);
  std::vector<float> slopes(heads);
  for (std::size_t h = 0; h < heads; ++h) {
    slopes[h] = 0.01f * static_cast<float>(h);
  }
  index_set visible;
  const auto shown = [](std::size_t t) { return t % 7 != 3 && (t < 100 || t >= 130); };
  for (std::uint32_t t = 0; t < 300; ++t) {
    if (shown(t)) {
      visible.add(t, t + 1);
    }
  }
  decoder<latent> engine(data, {.soft_cap = 1.5f, .slopes = slopes});
  std::vector<float> out(heads * latent::v_dim), log_sum_exp(heads);
  engine.attend(data.q, out, log_sum_exp, &visible);
  for (std::size_t h = 0; h < heads; ++h) {
    CAPTURE(h);
    const auto [exact, total] = data.exact(
        h,
        [&](double x, std::size_t t) {
          return 1.5 * std::tanh(x / 1.5) - as_double(slopes[h]) * (299.0 - static_cast<double>(t));
        },
        shown);
    CHECK(distance(std::span(out).subspan(h * latent::v_dim, latent::v_dim), exact) < 2e-6);
    CHECK(as_double(log_sum_exp[h]) == doctest::Approx(total).epsilon(1e-6));
  }
}

TEST_CASE("one hot key gives its value; large values stay finite, beside heads that see none") {
  many_heads<rows> data(9, 200, 16);
  std::fill_n(data.k.begin() + 77 * 64, 64, from_float<bf16>(0.0f));
  data.k[77 * 64] = from_float<bf16>(1e30f);
  std::ranges::fill(data.v, from_float<bf16>(-3e38f));
  std::fill_n(data.v.begin() + 77 * 32, 32, from_float<bf16>(3e38f));
  for (std::size_t h = 0; h < 16; ++h) {
    data.q[h * 64] = h % 2 == 0 ? 1.0f : 0.0f;  // odd heads do not see the hot key
  }
  decoder<rows> engine(data, {});
  std::vector<float> out(16 * 32), log_sum_exp(16);
  engine.attend(data.q, out, log_sum_exp, nullptr);
  const float large = to_float(from_float<bf16>(3e38f));
  for (std::size_t h = 0; h < 16; ++h) {
    for (std::size_t d = 0; d < 32; ++d) {
      const float got = out[h * 32 + d];
      CHECK((h % 2 == 0 ? got == large : std::abs(got) < large));
    }
  }
}

TEST_CASE("latent rows are cut into parts of equal tokens: what K and V share counts once") {
  access_plan plan;
  for (std::uint32_t tile = 0; tile < 8; ++tile) {
    page_read read;
    read.token_tile = tile;
    read.tokens = plan.begin_slice();
    plan.add_run(read.tokens, 0, 21);
    read.dims = plan.begin_slice();
    plan.add_run(read.dims, 0, 96);
    plan.add(read);
    read.kind = stream::v_by_token;
    read.shares = sharing::entries;
    read.dims = plan.begin_slice();
    plan.add_run(read.dims, 0, 64);
    plan.add(read);
  }
  std::vector<std::size_t> cuts;
  cpu::cut_plan(plan, 0, 16, 2, cuts);
  CHECK(cuts == std::vector<std::size_t>{0, 8, 16});
  cpu::cut_plan(plan, 0, 16, 4, cuts);
  CHECK(cuts == std::vector<std::size_t>{0, 4, 8, 12, 16});
}
