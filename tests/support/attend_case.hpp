#pragma once
// One launch of the attention kernel on random data against fp64, on whatever runs kernels: an
// emulated GPU, or a device.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/cuda/kernels/attend_kernel.hpp"
#include "instinfer/cuda/launch/attend_checks.hpp"
#include "instinfer/reference/exact.hpp"
#include "tests/support/definitions.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test {

struct attend_case {
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint32_t> first = {};  // empty: 0
  std::uint32_t kv_heads = 1;
  std::uint32_t group = 1;
  std::uint32_t page_tokens = 16;
  std::uint32_t blocks = 3;
  logit_rule rule = {};
  bool token_major = false;
  bool with_table = true;
  cuda::partition_rule partition = {};
  double listed_share = 0.0;  // > 0: fold a random subset
  bool blend = false;
  float v_size = 1.0f;  // V is multiplied by this power of 2; of codes, their scales
};

// A case of random shape: lengths, heads, pages, layout, mask, partition, and now and then a list.
inline attend_case random_case(unsigned seed) {
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  attend_case c;
  for (std::uint32_t s = 0; s <= below(4); ++s) {
    c.tokens.push_back(below(400));
    c.first.push_back(c.tokens.back() / (1 + below(8)) * below(2));
  }
  c.kv_heads = 1 + below(3);
  c.group = 1 + below(16);
  c.page_tokens = 1 + below(70);
  c.blocks = 1 + below(9);
  c.token_major = below(2) == 0;
  c.rule.window = below(3) == 0 ? 1 + below(200) : 0;
  c.rule.sinks = below(2) == 0 ? below(20) : 0;
  c.rule.soft_cap = below(4) == 0 ? 5.0f : 0.0f;
  c.partition.fixed = below(4) == 0;
  c.listed_share = below(3) == 0 ? 0.4 : 0.0;
  c.blend = c.listed_share > 0.0 && below(2) == 0;
  return c;
}

// 16-byte aligned storage that the kernel can reach.
template <class Runner, class T>
auto filled(std::size_t n, T value) {
  typename Runner::template vector<T> v(n, value);
  REQUIRE(reinterpret_cast<std::uintptr_t>(v.data()) % 16 == 0);
  return v;
}

// P is rounded to E before P V: u = half a unit of E in each weight, so |o - exact| <= u * sum p
// |v| in each dim. With v of mean 0.3 and deviation 1, sum p |v| is 0.85 and |o| at least 0.3 on
// average over the dims: a factor of 3, and 8 is safe.
template <class E>
constexpr double tolerance = 8.0 * rounding_error<E>;

// Values of one page and head as Code: what is stored, and, of codes, their scale. x [n]: values to
// store, then what is stored.
template <class E, class Code>
float encode_page(std::vector<float>& x, std::vector<Code>& codes) {
  std::vector<E> values(x.size());
  std::ranges::transform(x, values.begin(), [](float y) { return from_float<E>(y); });
  if constexpr (cuda::is_coded<Code>) {
    std::vector<std::byte> page(x.size() + sizeof(float));
    scaled_pages<Code, E>::encode(values, page);
    std::memcpy(codes.data(), page.data(), x.size());
    float scale;
    std::memcpy(&scale, page.data() + x.size(), sizeof(scale));
    std::ranges::transform(codes, x.begin(),
                           [&](Code c) { return code_8bit<Code>::to_value(c) * scale; });
    return scale;
  } else {
    codes = values;
    std::ranges::transform(values, x.begin(), [](E y) { return to_float(y); });
    return 1.0f;
  }
}

// What no live token holds: NaN, or a code that is none.
template <class Code>
Code poison() {
  if constexpr (std::same_as<Code, std::int8_t>) {
    return -128;
  } else if constexpr (std::same_as<Code, fp8>) {
    return fp8{0x7F};
  } else {
    return Code{0x7FFF};
  }
}

// Runner says where: vector<T> in memory that the kernel reaches, and run<E, Dim, Code>(arguments,
// rule, workspace, blocks, seed).
template <class Runner, class E, std::uint32_t Dim, class Code = E>
void check_attend(unsigned seed, const attend_case& c) {
  CAPTURE(seed);
  std::mt19937 random(seed);
  normal_distribution normal;
  const auto sequences = static_cast<std::uint32_t>(c.tokens.size());
  const std::uint32_t longest = *std::max_element(c.tokens.begin(), c.tokens.end());
  const std::uint32_t page_tokens = c.with_table ? c.page_tokens : std::max(longest, 1u);
  const std::uint32_t table_pages =
      c.with_table ? std::max(1u, (longest + page_tokens - 1) / page_tokens) : 1;
  const std::uint32_t pages = c.with_table ? sequences * table_pages + 3 : sequences;
  const std::size_t page_elements = std::size_t{page_tokens} * c.kv_heads * Dim;

  auto k = filled<Runner, Code>(pages * page_elements, poison<Code>());
  auto v = filled<Runner, Code>(pages * page_elements, poison<Code>());
  const std::size_t scale_count = cuda::is_coded<Code> ? pages * c.kv_heads : 0;
  auto k_scales = filled<Runner, float>(scale_count, std::numeric_limits<float>::quiet_NaN());
  auto v_scales = filled<Runner, float>(scale_count, std::numeric_limits<float>::quiet_NaN());
  auto table = filled<Runner, std::uint32_t>(sequences * table_pages, 0u);
  std::vector<std::uint32_t> all(pages);
  std::iota(all.begin(), all.end(), 0u);
  if (c.with_table) {
    std::shuffle(all.begin(), all.end(), random);
  }
  std::copy_n(all.begin(), table.size(), table.begin());
  const auto stream_of = [&](const auto& values, const auto& scales) {
    const std::uint32_t* t = c.with_table ? table.data() : nullptr;
    const auto stream =
        c.token_major
            ? cuda::token_major_pages(values.data(), pages, page_tokens, c.kv_heads, t, table_pages)
            : cuda::head_major_pages(values.data(), pages, page_tokens, c.kv_heads, t, table_pages);
    return scale_count == 0 ? stream : cuda::with_scales(stream, scales.data(), c.kv_heads);
  };
  const auto page_of = [&](std::uint32_t s, std::uint32_t t) -> std::size_t {
    return c.with_table ? table[s * table_pages + t / page_tokens] : s;
  };
  const auto row = [&](auto& values, std::uint32_t s, std::uint32_t h, std::uint32_t t) {
    const std::size_t in = t % page_tokens;
    return values.data() + page_of(s, t) * page_elements +
           (c.token_major ? (in * c.kv_heads + h) * Dim : (h * page_tokens + in) * Dim);
  };
  // Draws a head's tokens [first, last), page by page, stores them, and returns what is stored,
  // [last, Dim]. Pages of codes have values of different magnitudes, up to a factor of 2^spread, so
  // that their scales matter. `times`, a power of 2, multiplies what is stored.
  const auto store_head = [&](auto& values, auto& scales, std::uint32_t s, std::uint32_t h,
                              std::uint32_t first, std::uint32_t last, float mean, int spread,
                              float times) {
    reference::matrix stored = reference::matrix::Zero(last, Dim);
    for (std::uint32_t t = first; t < last;) {
      const std::uint32_t end = std::min(last, (t / page_tokens + 1) * page_tokens);
      const float size =
          cuda::is_coded<Code> ? std::ldexp(1.0f, static_cast<int>(random() % 8) * spread / 8) : 1;
      std::vector<float> x((end - t) * Dim);
      for (float& y : x) {
        y = (normal(random) + mean) * size * (cuda::is_coded<Code> ? 1.0f : times);
      }
      std::vector<Code> codes(x.size());
      const float scale = encode_page<E>(x, codes);
      if (scale_count > 0) {
        scales[page_of(s, t) * c.kv_heads + h] = scale * times;
        std::ranges::transform(x, x.begin(), [times](float y) { return y * times; });
      }
      for (std::size_t i = 0; i < x.size(); ++i) {
        const auto at = t + static_cast<std::uint32_t>(i / Dim);
        row(values, s, h, at)[i % Dim] = codes[i];
        stored(at, static_cast<Eigen::Index>(i % Dim)) = static_cast<double>(x[i]);
      }
      t = end;
    }
    return stored;
  };

  const std::uint32_t q_heads = c.kv_heads * c.group;
  auto q = filled<Runner, E>(std::size_t{sequences} * q_heads * Dim, E{});
  for (E& x : q) {
    x = from_float<E>(normal(random));
  }
  auto counts = filled<Runner, std::uint32_t>(sequences, 0u);
  const std::int64_t list_stride = std::int64_t{table_pages} * page_tokens;
  auto list = filled<Runner, std::uint32_t>(
      std::size_t{sequences} * c.kv_heads * static_cast<std::size_t>(list_stride), 0xFFFF'FFFFu);
  auto kept = filled<Runner, float>(std::size_t{sequences} * q_heads, 0.25f);
  auto mean = filled<Runner, float>(std::size_t{sequences} * c.kv_heads * Dim, 2.0f * c.v_size);

  struct expected_head {
    reference::row_vector out;
    double lse;
  };
  std::vector<expected_head> expected;
  for (std::uint32_t s = 0; s < sequences; ++s) {
    const std::uint32_t first = c.first.empty() ? 0 : c.first[s];
    const std::vector<int> visible =
        defined_visible(static_cast<int>(first), static_cast<int>(c.tokens[s]), c.rule);
    counts[s] = static_cast<std::uint32_t>(c.listed_share * static_cast<double>(visible.size()));
    for (std::uint32_t h = 0; h < c.kv_heads; ++h) {
      const reference::matrix all_k =
          store_head(k, k_scales, s, h, first, c.tokens[s], 0.0f, -4, 1.0f);
      const reference::matrix all_v =
          store_head(v, v_scales, s, h, first, c.tokens[s], 0.3f, -12, c.v_size);
      std::vector<std::uint32_t> tokens(visible.begin(), visible.end());
      if (c.listed_share > 0.0) {
        std::shuffle(tokens.begin(), tokens.end(), random);
        tokens.resize(counts[s]);
        std::sort(tokens.begin(), tokens.end());
        std::copy(tokens.begin(), tokens.end(),
                  list.begin() + (std::int64_t{s} * c.kv_heads + h) * list_stride);
      }
      const auto n = static_cast<Eigen::Index>(tokens.size());
      reference::matrix K(n, Dim), V(n, Dim);
      for (Eigen::Index t = 0; t < n; ++t) {
        K.row(t) = all_k.row(tokens[static_cast<std::size_t>(t)]);
        V.row(t) = all_v.row(tokens[static_cast<std::size_t>(t)]);
      }
      const logit_rule plain{.scale = c.rule.scale, .soft_cap = c.rule.soft_cap};
      for (std::uint32_t g = 0; g < c.group; ++g) {
        reference::row_vector x(Dim);
        for (std::uint32_t i = 0; i < Dim; ++i) {
          x[i] = static_cast<double>(
              to_float(q[((std::size_t{s} * c.kv_heads + h) * c.group + g) * Dim + i]));
        }
        double sum = 0.0;
        for (Eigen::Index t = 0; t < n; ++t) {
          sum += std::exp(defined_logit(x.dot(K.row(t)), Dim, plain));
        }
        reference::row_vector out = defined_attention(x, K, V, plain);
        if (c.blend) {
          out = 0.25 * out +
                0.75 * reference::row_vector::Constant(Dim, 2.0 * static_cast<double>(c.v_size));
        }
        expected.push_back({out, std::log(sum)});
      }
    }
  }

  auto out = filled<Runner, float>(std::size_t{sequences} * q_heads * Dim, -1e30f);
  auto lse = filled<Runner, float>(std::size_t{sequences} * q_heads, -1e30f);
  auto lengths = filled<Runner, std::uint32_t>(sequences, 0u);
  auto firsts = filled<Runner, std::uint32_t>(sequences, 0u);
  std::ranges::copy(c.tokens, lengths.begin());
  std::ranges::copy(c.first, firsts.begin());
  const cuda::attend_arguments<E, float, Code> a{
      .q = q.data(),
      .out = out.data(),
      .lse_base_e = lse.data(),
      .k = stream_of(k, k_scales),
      .v = stream_of(v, v_scales),
      .tokens = lengths.data(),
      .first = c.first.empty() ? nullptr : firsts.data(),
      .sizes = {sequences, c.kv_heads, c.group, table_pages * page_tokens},
      .scale = c.rule.scale_for(Dim),
      .soft_cap = c.rule.soft_cap,
      .window = c.rule.window,
      .sinks = c.rule.sinks,
      .listed = c.listed_share > 0.0 ? list.data() : nullptr,
      .listed_counts = c.listed_share > 0.0 ? counts.data() : nullptr,
      .list_stride = list_stride,
      .kept = c.blend ? kept.data() : nullptr,
      .mean_v = c.blend ? mean.data() : nullptr};
  const std::uint64_t bytes = cuda::attend_workspace::bytes(a.sizes, c.partition, c.blocks, Dim);
  auto memory = filled<Runner, cuda::float_quad>(bytes / 16, cuda::float_quad{});
  REQUIRE(bytes % 16 == 0);
  const auto work = cuda::attend_workspace::in(memory.data(), a.sizes, c.partition, c.blocks);
  const std::uint64_t slots = cuda::attend_workspace::slots(a.sizes, c.partition, c.blocks);
  std::fill(work.partials, reinterpret_cast<float*>(memory.data() + memory.size()),
            std::numeric_limits<float>::quiet_NaN());
  cuda::check_arguments(a, c.partition);

  // A second time on the same workspace, as a graph replays it.
  for (unsigned launch = 0; launch < 2; ++launch) {
    const std::vector<float> before(out.begin(), out.end());
    Runner::template run<E, Dim, Code>(a, c.partition, work, c.blocks, seed + launch);
    CHECK(*work.status == 0);
    CHECK(std::all_of(work.tickets, work.tickets + slots, [](std::uint32_t t) { return t == 0; }));
    if (launch == 1) {  // the order in which blocks and warps ran was another one
      CHECK(std::memcmp(before.data(), out.data(), out.size() * sizeof(float)) == 0);
    }
  }
  for (std::size_t h = 0; h < expected.size(); ++h) {
    CAPTURE(h);
    double difference = 0.0;
    for (std::uint32_t i = 0; i < Dim; ++i) {
      const double d = static_cast<double>(out[h * Dim + i]) - expected[h].out[i];
      difference += d * d;
    }
    const double norm = expected[h].out.norm();
    CHECK(std::sqrt(difference) <= tolerance<E> * norm);
    if (std::isinf(expected[h].lse)) {
      CHECK(static_cast<double>(lse[h]) == expected[h].lse);
    } else {
      CHECK(std::abs(static_cast<double>(lse[h]) - expected[h].lse) <=
            1e-5 * (1.0 + std::abs(expected[h].lse)));
    }
  }
}

}  // namespace instinfer::test
