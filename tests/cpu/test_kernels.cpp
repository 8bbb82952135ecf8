// The kernels of the CPU path one by one, against double: every tail length, every element type and head size, any
// alignment, and the edges of the numbers. Nothing outside of a kernel's range may be touched.

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "instinfer/cpu.hpp"

using namespace instinfer;

namespace {

constexpr double eps = 0x1p-24;  // half a unit in the last place of fp32, relative
constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float untouched = 12345.5f;

// n floats `offset` floats behind a vector's alignment, between guards.
class guarded {
 public:
  guarded(std::size_t n, std::size_t offset)
      : floats_(n + 96, untouched), first_{32 + offset}, n_{n} {
    const auto address = reinterpret_cast<std::uintptr_t>(floats_.data());
    first_ += (64 - address % 64) / sizeof(float) % 16;
  }
  float* data() { return floats_.data() + first_; }
  std::span<float> span() { return {data(), n_}; }
  bool guards_hold() const {
    for (std::size_t i = 0; i < floats_.size(); ++i) {
      if ((i < first_ || i >= first_ + n_) && floats_[i] != untouched) {
        return false;
      }
    }
    return true;
  }

 private:
  std::vector<float> floats_;
  std::size_t first_;
  std::size_t n_;
};

void fill(std::span<float> x, std::mt19937& random, float from, float to) {
  for (float& v : x) {
    v = std::uniform_real_distribution<float>{from, to}(random);
  }
}

double as_double(float x) { return static_cast<double>(x); }

// |a - b| in units of b's last place in fp32, denormal ones included.
double ulps(float a, double b) {
  const float nearest = static_cast<float>(b);
  const float up = std::nextafter(nearest, inf) - nearest;
  return std::abs(as_double(a) - b) / as_double(up);
}

template <class Packed>
Packed random_packed(std::mt19937& random) {
  if constexpr (Element<Packed>) {
    return from_float<Packed>(std::uniform_real_distribution<float>{-2.0f, 2.0f}(random));
  } else if constexpr (std::is_same_v<Packed, fp8>) {
    return {static_cast<std::uint8_t>(random() % 127 | (random() & 128))};  // 127 is NaN
  } else if constexpr (std::is_same_v<Packed, int4_group>) {
    int4_group g;
    std::ranges::generate(g.codes, [&] { return static_cast<std::uint8_t>(random()); });
    g.step = random_packed<fp16>(random);
    g.low = random_packed<fp16>(random);
    return g;
  } else {
    return static_cast<Packed>(random());
  }
}

// Rows of packed at any address that their type allows, also the odd ones that no vector is aligned to.
template <class Packed>
class rows_of {
 public:
  rows_of(std::size_t rows, std::size_t dims, std::mt19937& random)
      : dims_{dims}, packed_(rows * (dims / packed_elements<Packed> + 1) + 1) {
    const std::size_t in_row = dims / packed_elements<Packed>;
    for (std::size_t r = 0; r < rows; ++r) {
      Packed* row = packed_.data() + 1 + r * (in_row + 1);  // a row of odd length after each other
      std::generate_n(row, in_row, [&] { return random_packed<Packed>(random); });
      pointers_.push_back(row);
    }
  }
  const Packed* const* data() const { return pointers_.data(); }
  double operator()(std::size_t row, std::size_t i) const {
    return as_double(to_float(pointers_[row][i]));
  }
  std::size_t dims() const { return dims_; }

 private:
  std::size_t dims_;
  std::vector<Packed> packed_;
  std::vector<const Packed*> pointers_;
};

// The bound for a sum of n products in any order, with or without fused multiply-adds: n eps times the sum of their
// magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, §3.1), to first order; the factor covers the rest.
double sum_bound(std::size_t n, double magnitude) {
  return 1.01 * static_cast<double>(n) * eps * magnitude;
}

template <std::uint32_t Heads, std::uint32_t Dims, Element E>
void check_rows(unsigned seed) {
  CAPTURE(seed);
  CAPTURE(Heads);
  CAPTURE(Dims);
  std::mt19937 random(seed);
  constexpr std::uint32_t slots = cpu::slots<Heads>;
  constexpr std::size_t tile_rows = cpu::lanes / slots;
  const std::size_t count = 2 * tile_rows + 3;
  const rows_of<E> rows(count, Dims, random);
  guarded q(Heads * Dims, 1 + seed % 15);
  fill(q.span(), random, -3.0f, 3.0f);
  for (const cpu::rows_ahead<E> ahead :
       {cpu::rows_ahead<E>{}, cpu::rows_ahead<E>{rows.data(), rows.data()}}) {
    for (const std::size_t first : {std::size_t{0}, std::size_t{3}}) {
      guarded products(cpu::lanes, seed % 16);
      cpu::hn::StoreU(cpu::score_rows<Heads, Dims, E>(rows.data() + first, q.data(), ahead),
                      cpu::float_tag{}, products.data());
      CHECK(products.guards_hold());
      for (std::size_t h = 0; h < Heads; ++h) {
        for (std::size_t t = 0; t < tile_rows; ++t) {
          double exact = 0;
          double magnitude = 0;
          for (std::size_t i = 0; i < Dims; ++i) {
            const double product = as_double(q.span()[h * Dims + i]) * rows(first + t, i);
            exact += product;
            magnitude += std::abs(product);
          }
          REQUIRE(std::abs(as_double(products.span()[t * slots + h]) - exact) <=
                  sum_bound(Dims, magnitude));
        }
      }
    }

    // Any number of rows, and the sums go on from what is there.
    for (const std::size_t folded : {std::size_t{0}, std::size_t{1}, count - 1, count}) {
      CAPTURE(folded);
      guarded weights(count * slots, 5);
      fill(weights.span(), random, 0.0f, 1.0f);
      guarded o(Heads * Dims, 7);
      fill(o.span(), random, -1.0f, 1.0f);
      const std::vector<float> before(o.span().begin(), o.span().end());
      cpu::accumulate_rows<Heads, Dims, E>(rows.data(), folded, weights.data(), o.data(), ahead);
      CHECK(o.guards_hold());
      for (std::size_t h = 0; h < Heads; ++h) {
        for (std::size_t i = 0; i < Dims; ++i) {
          double exact = as_double(before[h * Dims + i]);
          double magnitude = std::abs(exact);
          for (std::size_t t = 0; t < folded; ++t) {
            const double product = as_double(weights.span()[t * slots + h]) * rows(t, i);
            exact += product;
            magnitude += std::abs(product);
          }
          REQUIRE(std::abs(as_double(o.span()[h * Dims + i]) - exact) <=
                  sum_bound(folded + 1, magnitude));
        }
      }
    }
  }
}

template <std::uint32_t Heads, Element E>
void check_head_sizes() {
  check_rows<Heads, 16, E>(101);
  check_rows<Heads, 48, E>(102);
  check_rows<Heads, 64, E>(103);
  check_rows<Heads, 80, E>(104);
  check_rows<Heads, 96, E>(105);
  check_rows<Heads, 128, E>(106);
  check_rows<Heads, 192, E>(107);
  check_rows<Heads, 240, E>(108);
  check_rows<Heads, 256, E>(109);
}

template <std::uint32_t Heads, Element E>
void check_columns(unsigned seed) {
  CAPTURE(seed);
  CAPTURE(Heads);
  std::mt19937 random(seed);
  constexpr std::size_t tile_tokens = 300;
  constexpr std::size_t all_dims = 40;
  const rows_of<E> columns(all_dims, tile_tokens, random);  // one row a dim
  guarded q(Heads * all_dims, 3);
  fill(q.span(), random, -3.0f, 3.0f);
  for (const std::size_t wanted : {0u, 1u, 7u, 40u}) {
    std::vector<cpu::column<E>> list;
    for (std::size_t c = 0; c < wanted; ++c) {
      const std::size_t i = c * all_dims / wanted;
      list.push_back({columns.data()[i], static_cast<std::uint32_t>(i)});
    }
    for (std::uint32_t length = 0; length <= 140; ++length) {
      const index_run run{length % 11, length % 11 + length};
      CAPTURE(length);
      guarded products(Heads * tile_tokens, length % 16);
      cpu::score_columns<Heads, E>(list, run, q.data(), all_dims, products.data(), tile_tokens,
                                   length % 2 == 0 ? std::span<const cpu::column<E>>{} : list);
      CHECK(products.guards_hold());
      for (std::size_t h = 0; h < Heads; ++h) {
        for (std::size_t t = 0; t < tile_tokens; ++t) {
          const float mine = products.span()[h * tile_tokens + t];
          if (t < run.first || t >= run.last) {
            REQUIRE(mine == untouched);
            continue;
          }
          double exact = 0;
          double magnitude = 0;
          for (const cpu::column<E>& c : list) {
            const double product = as_double(q.span()[h * all_dims + c.dim]) * columns(c.dim, t);
            exact += product;
            magnitude += std::abs(product);
          }
          REQUIRE(std::abs(as_double(mine) - exact) <= sum_bound(wanted, magnitude));
        }
      }
    }
  }
}

// score_any and fold_any on tiles of any strides, for some of their tokens and dims.
template <Element E>
void check_any(const layout::tile& shape, unsigned seed) {
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::vector<E> page(shape.elements() + 1);
  for (E& x : page) {
    x = from_float<E>(std::uniform_real_distribution<float>{-2.0f, 2.0f}(random));
  }
  const layout::tile_view<E> view{page.data() + 1, shape, shape.tokens};
  const auto some = [&](std::uint32_t of, unsigned one_in) {
    index_set set;
    for (std::uint32_t i = 0; i < of; ++i) {
      if (random() % one_in == 0) {
        set.add(i);
      }
    }
    return set;
  };
  for (const unsigned one_in : {1u, 3u, 1000u}) {
    CAPTURE(one_in);
    const index_set wanted_tokens = some(shape.tokens, one_in);
    const index_set wanted_dims = some(shape.dims, one_in);
    const std::uint32_t group = 3;
    const std::size_t stride = shape.tokens + 2;
    guarded q(group * (shape.dims + 5), 0), products(group * stride, 1);
    fill(q.span(), random, -3.0f, 3.0f);
    fill(products.span(), random, -1.0f, 1.0f);
    const std::vector<float> before(products.span().begin(), products.span().end());
    cpu::score_any(view, wanted_tokens, wanted_dims, group, q.data(), shape.dims + 5,
                   products.data(), stride);
    CHECK(products.guards_hold());
    guarded o(group * (shape.dims + 9), 2), weights(group * stride, 3);
    fill(weights.span(), random, 0.0f, 1.0f);
    fill(o.span(), random, -1.0f, 1.0f);
    const std::vector<float> o_before(o.span().begin(), o.span().end());
    cpu::fold_any(view, wanted_tokens, group, weights.data(), stride, o.data(), shape.dims + 9);
    CHECK(o.guards_hold());
    const auto element = [&](std::uint32_t t, std::uint32_t i) {
      return as_double(to_float(view.data[shape.offset(t, i)]));
    };
    for (std::uint32_t h = 0; h < group; ++h) {
      for (std::uint32_t t = 0; t < stride; ++t) {
        double exact = as_double(before[h * stride + t]);
        double magnitude = std::abs(exact);
        if (wanted_tokens.view().contains(t)) {
          wanted_dims.view().for_each([&](std::uint32_t i) {
            const double product = as_double(q.span()[h * (shape.dims + 5) + i]) * element(t, i);
            exact += product;
            magnitude += std::abs(product);
          });
        }
        REQUIRE(std::abs(as_double(products.span()[h * stride + t]) - exact) <=
                sum_bound(wanted_dims.count() + 1, magnitude));
      }
      for (std::uint32_t i = 0; i < shape.dims + 9; ++i) {
        double exact = as_double(o_before[h * (shape.dims + 9) + i]);
        double magnitude = std::abs(exact);
        if (i < shape.dims) {
          wanted_tokens.view().for_each([&](std::uint32_t t) {
            const double product = as_double(weights.span()[h * stride + t]) * element(t, i);
            exact += product;
            magnitude += std::abs(product);
          });
        }
        REQUIRE(std::abs(as_double(o.span()[h * (shape.dims + 9) + i]) - exact) <=
                sum_bound(wanted_tokens.count() + 1, magnitude));
      }
    }
  }
}

// A cache of one head on the CPU path, q and one output head.
template <Element E>
std::vector<float> attend_one(const std::vector<float>& k, const std::vector<float>& v,
                              const std::vector<float>& q) {
  cpu::engine<insta, kv_format<E, 64>> engine({}, {.bytes = 1 << 20});
  std::vector<E> ke, ve;
  for (std::size_t i = 0; i < k.size(); ++i) {
    ke.push_back(from_float<E>(k[i]));
    ve.push_back(from_float<E>(v[i]));
  }
  const sequence seq = engine.open();
  engine.append(seq, 0, ke, ve);
  std::vector<float> out(64);
  engine.attend(seq, 0, q, out);
  return out;
}

}  // namespace

TEST_CASE("softmax kernels: every length from 0 to 70, at any alignment, against double") {
  std::mt19937 random(71);
  for (std::size_t n = 0; n <= 70; ++n) {
    CAPTURE(n);
    for (const std::size_t offset : {std::size_t{0}, std::size_t{1}, n % 16}) {
      guarded x(n, offset);
      for (const float cap : {0.0f, 5.0f}) {
        CAPTURE(cap);
        fill(x.span(), random, -40.0f, 40.0f);
        const std::vector<float> before(x.span().begin(), x.span().end());
        const float scale = 0.31f;
        const float max = cpu::scale_logits(x.data(), n, scale, cap);
        CHECK(x.guards_hold());
        float largest = -inf;
        for (std::size_t i = 0; i < n; ++i) {
          largest = std::max(largest, x.span()[i]);
          const double scaled = as_double(before[i]) * as_double(scale);
          // Scaling rounds once. With a cap: two products, tanh (Highway: 4 ulp, so 8 eps, at a condition number below
          // 1) and a product, 1/cap rounded: 12 eps.
          const double exact =
              cap > 0 ? as_double(cap) * std::tanh(scaled / as_double(cap)) : scaled;
          REQUIRE(std::abs(as_double(x.span()[i]) - exact) <=
                  (cap > 0 ? 12 : 1) * eps * std::abs(exact) * 1.01);
        }
        CHECK(max == largest);  // -inf for nothing

        const std::vector<float> logits(x.span().begin(), x.span().end());
        const float shift = n == 0 ? 1.0f : max;
        const float sum = cpu::exponentials(x.data(), x.data(), n, shift);
        CHECK(x.guards_hold());
        double exact_sum = 0;
        for (std::size_t i = 0; i < n; ++i) {
          const double exact =
              std::exp(as_double(logits[i] - shift));  // the difference as fp32 has it
          exact_sum += exact;
          REQUIRE(ulps(x.span()[i], exact) <= 2);
        }
        // 2 ulp a term, and n additions of positive terms.
        CHECK(std::abs(as_double(sum) - exact_sum) <=
              (4 + static_cast<double>(n)) * eps * exact_sum);

        const std::vector<float> p(x.span().begin(), x.span().end());
        cpu::multiply(x.data(), n, 0.7f);
        guarded to(n, 15 - offset);
        std::iota(to.span().begin(), to.span().end(), 1.0f);
        cpu::accumulate(to.data(), x.data(), n);
        CHECK(x.guards_hold());
        CHECK(to.guards_hold());
        for (std::size_t i = 0; i < n; ++i) {
          REQUIRE(x.span()[i] == p[i] * 0.7f);
          REQUIRE(to.span()[i] == static_cast<float>(i + 1) + x.span()[i]);
        }
      }
    }
  }
}

TEST_CASE("exp is within 2 ulp, and 0 where it is below 2^-126") {
  // Every 97th float of the interval that matters, [-100, -2^-20]; then the ends.
  const double least = -126 * std::log(2.0);
  const auto bits_of = [](float x) { return std::bit_cast<std::uint32_t>(x); };
  std::vector<float> x;
  double worst = 0;
  float worst_at = 0;
  const auto measure = [&] {
    std::vector<float> p = x;
    cpu::exponentials(p.data(), p.data(), p.size(), 0.0f);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (as_double(x[i]) < least - 1e-5) {
        REQUIRE(p[i] == 0.0f);
      } else if (as_double(x[i]) < least) {  // fp32 cannot tell: 0 or the least normal number
        REQUIRE(p[i] <= 0x1.001p-126f);
      } else if (const double error = ulps(p[i], std::exp(as_double(x[i]))); error > worst) {
        worst = error;
        worst_at = x[i];
      }
    }
    x.clear();
  };
  for (std::uint32_t bits = bits_of(-0x1p-20f); bits <= bits_of(-100.0f); bits += 97) {
    x.push_back(std::bit_cast<float>(bits));
    if (x.size() == 4096) {
      measure();
    }
  }
  x.insert(x.end(),
           {-100.0f, -0.0f, 0.0f, -0x1p-149f, -0x1p-126f, -87.3365478515625f, -87.33654f, -88.0f});
  measure();
  MESSAGE("largest error of exp: ", worst, " ulp at ", worst_at);
  CHECK(worst <= 2);

  std::vector<float> edges{0.0f,    -0.0f,  -inf,
                           -200.0f, -1e30f, std::numeric_limits<float>::lowest()};
  cpu::exponentials(edges.data(), edges.data(), edges.size(), 0.0f);
  CHECK(edges == std::vector<float>{1, 1, 0, 0, 0, 0});
}

TEST_CASE("exponentials: equal logits, one-hot logits, masked ones") {
  for (std::size_t n = 1; n <= 70; ++n) {
    CAPTURE(n);
    for (const float level : {0.0f, 1e-30f, -3.0f, 1e30f, -1e30f}) {
      std::vector<float> x(n, level);
      CHECK(cpu::exponentials(x.data(), x.data(), n, level) == static_cast<float>(n));
      CHECK(x == std::vector<float>(n, 1.0f));
    }
    for (std::size_t hot = 0; hot < n; hot += 1 + n / 5) {
      for (const float other : {-3e38f, -inf, -1e4f}) {
        std::vector<float> x(n, other);
        x[hot] = 3e37f;
        const float max = cpu::scale_logits(x.data(), n, 1.0f, 0.0f);
        CHECK(max == 3e37f);
        CHECK(cpu::exponentials(x.data(), x.data(), n, max) == 1.0f);
        std::vector<float> expected(n, 0.0f);
        expected[hot] = 1.0f;
        CHECK(x == expected);
      }
    }
  }
}

TEST_CASE("denormals are numbers like others") {
  const float least = 0x1p-149f;
  std::vector<float> x(37, 3 * least);
  x[20] = -7 * least;
  std::vector<float> scaled = x;
  CHECK(cpu::scale_logits(scaled.data(), scaled.size(), 1.0f, 0.0f) == 3 * least);
  CHECK(scaled == x);
  cpu::multiply(scaled.data(), scaled.size(), 4.0f);
  CHECK(scaled[0] == 12 * least);
  CHECK(scaled[20] == -28 * least);
  cpu::accumulate(scaled.data(), x.data(), x.size());
  CHECK(scaled[36] == 15 * least);

  // Weights that underflow, and values that are denormal in their own type, as dot products and sums.
  std::vector<float> k(32 * 64, 0.0f), v(32 * 64), q(64, 0.0f);
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = 0x1p-24f * static_cast<float>(i % 5);  // fp16 denormals
    k[i] = 0x1p-24f * static_cast<float>(i / 64);
  }
  q[3] = 0x1p24f;  // logits 0, 1, ... 31 by 1/8
  const std::vector<float> out = attend_one<fp16>(k, v, q);
  double sum = 0;
  std::vector<double> exact(64);
  for (std::size_t t = 0; t < 32; ++t) {
    const double p = std::exp(static_cast<double>(t) / 8);
    sum += p;
    for (std::size_t i = 0; i < 64; ++i) {
      exact[i] += p * as_double(v[t * 64 + i]);
    }
  }
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK(std::abs(as_double(out[i]) - exact[i] / sum) <= 64 * eps * exact[i] / sum);
  }
}

TEST_CASE("loads widen every finite value exactly") {
  std::vector<fp16> half(65536 + cpu::lanes);
  std::vector<bf16> brain(65536 + cpu::lanes);
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    half[bits].bits = static_cast<std::uint16_t>(bits);
    brain[bits].bits = static_cast<std::uint16_t>(bits);
  }
  float wide[16];
  for (std::uint32_t bits = 1; bits < 65536; bits += cpu::lanes) {  // from odd addresses
    const auto check = [&](const auto* from) {
      cpu::hn::StoreU(cpu::load(from), cpu::float_tag{}, wide);
      for (std::uint32_t i = 0; i < cpu::lanes; ++i) {
        if (is_finite(from[i])) {
          REQUIRE(std::bit_cast<std::uint32_t>(wide[i]) ==
                  std::bit_cast<std::uint32_t>(to_float(from[i])));
        }
      }
    };
    check(half.data() + bits);
    check(brain.data() + bits);
  }
}

TEST_CASE_TEMPLATE("row kernels: products and sums of rows, all heads at once, all head sizes", E,
                   fp32, fp16, bf16) {
  check_head_sizes<1, E>();
  check_head_sizes<std::min(2u, cpu::heads_at_once), E>();
  check_head_sizes<std::min(3u, cpu::heads_at_once), E>();
  check_head_sizes<std::min(4u, cpu::heads_at_once), E>();
  check_head_sizes<cpu::heads_at_once, E>();
}

// Row by row, K and V by turns: the same sums in the same order as one after the other, so the same bits.
template <std::uint32_t KDim, std::uint32_t VDim, class Packed>
void check_interleaved(unsigned seed) {
  if constexpr (cpu::rows_interleave<KDim, VDim> && KDim % packed_elements<Packed> == 0 &&
                VDim % packed_elements<Packed> == 0) {
    CAPTURE(KDim);
    CAPTURE(VDim);
    std::mt19937 random(seed);
    const rows_of<Packed> k(32, KDim, random);
    const rows_of<Packed> v(32, VDim, random);
    guarded q(KDim, 3), weights(16, 1), o(VDim, 5), mine(16, 0), expected(16, 0);
    fill(q.span(), random, -3.0f, 3.0f);
    fill(weights.span(), random, 0.0f, 1.0f);
    fill(o.span(), random, -1.0f, 1.0f);
    std::vector<float> sums(o.span().begin(), o.span().end());
    cpu::hn::StoreU(cpu::score_rows<1, KDim, Packed>(k.data(), q.data(), {}), cpu::float_tag{},
                    expected.data());
    cpu::accumulate_rows<1, VDim, Packed>(v.data(), 16, weights.data(), sums.data(), {});
    // Rows to bring to the cache: of both, of K alone, of V alone.
    cpu::rows_ahead<Packed> k_ahead, v_ahead;
    if (seed % 3 != 0) {
      k_ahead = {k.data(), k.data() + 16};
    }
    if (seed % 3 != 1) {
      v_ahead = {v.data(), v.data() + 16};
    }
    cpu::hn::StoreU(cpu::score_and_accumulate<KDim, VDim, Packed>(
                        k.data(), q.data(), v.data(), weights.data(), o.data(), k_ahead, v_ahead),
                    cpu::float_tag{}, mine.data());
    CHECK(o.guards_hold());
    CHECK(mine.guards_hold());
    CHECK(std::ranges::equal(mine.span(), expected.span()));
    CHECK(std::ranges::equal(o.span(), sums));
  }
}

TEST_CASE_TEMPLATE("row kernels of K and V by turns", Packed, fp32, fp16, bf16, std::int8_t, fp8,
                   int4_group) {
  check_interleaved<16, 16, Packed>(301);
  check_interleaved<64, 64, Packed>(302);
  check_interleaved<80, 96, Packed>(303);
  check_interleaved<128, 128, Packed>(304);
  check_interleaved<256, 64, Packed>(305);
}

TEST_CASE_TEMPLATE("column kernel: products of chosen dims for runs of tokens", E, fp32, fp16,
                   bf16) {
  check_columns<1, E>(201);
  check_columns<std::min(2u, cpu::heads_at_once), E>(202);
  check_columns<std::min(3u, cpu::heads_at_once), E>(203);
  check_columns<std::min(4u, cpu::heads_at_once), E>(204);
  check_columns<cpu::heads_at_once, E>(205);
}

TEST_CASE_TEMPLATE("element by element kernels: any tile", E, fp32, fp16, bf16) {
  check_any<E>(layout::by_token(31, 16), 301);
  check_any<E>(layout::by_dim(40, 8), 302);
  check_any<E>({.tokens = 9, .dims = 7, .token_stride = 20, .dim_stride = 2}, 303);
  check_any<E>({.tokens = 9, .dims = 7, .token_stride = 3, .dim_stride = 31}, 304);
}

TEST_CASE_TEMPLATE("attention of equal keys is the mean, of one hot key its value", E, fp32, fp16,
                   bf16) {
  for (const std::size_t tokens : {1u, 15u, 16u, 17u, 63u, 64u, 65u, 200u}) {
    CAPTURE(tokens);
    std::mt19937 random(static_cast<unsigned>(81 + tokens));
    std::vector<float> k(tokens * 64, 0.75f), v(tokens * 64), q(64, 1.5f);
    for (float& x : v) {
      x = to_float(from_float<E>(std::uniform_real_distribution<float>{-1.0f, 1.0f}(random)));
    }
    const std::vector<float> mean = attend_one<E>(k, v, q);
    for (std::size_t i = 0; i < 64; ++i) {
      double exact = 0;
      double magnitude = 0;
      for (std::size_t t = 0; t < tokens; ++t) {
        exact += as_double(v[t * 64 + i]) / static_cast<double>(tokens);
        magnitude += std::abs(as_double(v[t * 64 + i])) / static_cast<double>(tokens);
      }
      CHECK(std::abs(as_double(mean[i]) - exact) <= sum_bound(tokens + 3, magnitude));
    }
    const std::size_t hot = tokens * 2 / 3;
    std::fill_n(k.begin() + static_cast<std::ptrdiff_t>(hot * 64), 64, 60000.0f);
    const std::vector<float> one = attend_one<E>(k, v, q);
    CHECK(std::vector<float>(v.begin() + static_cast<std::ptrdiff_t>(hot * 64),
                             v.begin() + static_cast<std::ptrdiff_t>(hot * 64 + 64)) == one);
    // All keys far below zero: only the differences matter.
    std::ranges::fill(k, -60000.0f);
    CHECK(attend_one<E>(k, v, q) == mean);
  }
}
