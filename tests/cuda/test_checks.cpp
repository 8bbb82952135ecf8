// What a launch refuses, by the argument's name, and what a kernel survives.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "instinfer/cuda/kernels/attend_kernel.hpp"
#include "instinfer/cuda/launch/attend_checks.hpp"
#include "instinfer/cuda/launch/table_check.hpp"
#include "tests/support/emulated_gpu.hpp"

namespace instinfer::test_checks {

namespace {

using arguments = cuda::attend_arguments<fp16, float>;

// A batch of two sequences of one KV head, pages of 16 tokens, head size 64.
struct small_batch {
  std::vector<cuda::float_quad> storage = std::vector<cuda::float_quad>(6 * 16 * 64 * 2 / 16);
  std::vector<cuda::float_quad> q = std::vector<cuda::float_quad>(2 * 64 * 2 / 16);
  std::vector<float> out = std::vector<float>(2 * 64, 7.0f);
  std::vector<std::uint32_t> table{0, 1, 2, 3};
  std::vector<std::uint32_t> tokens{32, 20};

  arguments get() const {
    const auto* pages = reinterpret_cast<const fp16*>(storage.data());
    const auto stream = cuda::head_major_pages(pages, 6, 16, 1, table.data(), 2);
    return {.q = reinterpret_cast<const fp16*>(q.data()),
            .out = const_cast<float*>(out.data()),
            .k = stream,
            .v = stream,
            .tokens = tokens.data(),
            .sizes = {2, 1, 1, 32},
            .scale = 0.125f};
  }
};

void refused(const std::string& name, const std::function<void(arguments&)>& spoil,
             const cuda::partition_rule& rule = {}) {
  CAPTURE(name);
  const small_batch batch;
  arguments a = batch.get();
  cuda::check_arguments(a, cuda::partition_rule{});
  spoil(a);
  try {
    cuda::check_arguments(a, rule);
    FAIL("not refused");
  } catch (const bad_argument& e) {
    CHECK(std::string(e.what()).find(name) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("arguments are named") {
  refused("q must not be null", [](arguments& a) { a.q = nullptr; });
  refused("q must be aligned", [](arguments& a) { ++a.q; });
  refused("out must not be null", [](arguments& a) { a.out = nullptr; });
  refused("tokens", [](arguments& a) { a.tokens = nullptr; });
  refused("k.pages must be aligned", [](arguments& a) { ++a.k.pages; });
  refused("v.pages must not be null", [](arguments& a) { a.v.pages = nullptr; });
  refused("v.page_count", [](arguments& a) { a.v.page_count = 0; });
  refused("v: a pool has at most", [](arguments& a) { a.v.page_count = 0xFFFF'FFFFu; });
  refused("k.table_pages", [](arguments& a) { a.k.table_pages = 0; });
  refused("without a table", [](arguments& a) {
    a.k.table = nullptr;
    a.k.page_count = 1;
  });
  refused("group must be 1 to 16", [](arguments& a) { a.sizes.group = 17; });
  refused("group", [](arguments& a) { a.sizes.group = 0; });
  refused("kv_heads", [](arguments& a) { a.sizes.kv_heads = 0; });
  refused("scale", [](arguments& a) { a.scale = std::nanf(""); });
  refused("scale", [](arguments& a) { a.scale = 0.0f; });
  refused("soft_cap", [](arguments& a) { a.soft_cap = -1.0f; });
  refused("listed and listed_counts", [](arguments& a) { a.listed = a.tokens; });
  refused("list_stride", [](arguments& a) {
    a.listed = a.listed_counts = a.tokens;
    a.list_stride = 31;
  });
  refused("most_positions 33", [](arguments& a) { a.sizes.most_positions = 33; });
  refused("most_positions must be positive", [](arguments& a) { a.sizes.most_positions = 0; });
  refused("kept and mean_v", [](arguments& a) { a.kept = a.out; });
  refused("slice_tokens", [](arguments&) {}, {.slice_tokens = 0});
  refused("parts",
          [](arguments& a) {
            a.sizes.most_positions = 32;
            a.sizes.group = 16;
            a.k.table_pages = a.v.table_pages = 1024;
            a.sizes.most_positions = 16384;
          },
          {.slice_tokens = 1, .fixed = true});
}

TEST_CASE("codes need their scales") {
  const small_batch batch;
  const arguments plain = batch.get();
  const auto* codes = reinterpret_cast<const fp8*>(batch.storage.data());
  const auto pages = cuda::head_major_pages(codes, 6, 16, 1, batch.table.data(), 2);
  cuda::attend_arguments<fp16, float, fp8> a{.q = plain.q,
                                             .out = plain.out,
                                             .k = cuda::with_scales(pages, batch.out.data(), 1),
                                             .v = cuda::with_scales(pages, batch.out.data(), 1),
                                             .tokens = plain.tokens,
                                             .sizes = plain.sizes,
                                             .scale = plain.scale};
  cuda::check_arguments(a, cuda::partition_rule{});
  a.v.scales = nullptr;
  CHECK_THROWS_WITH_AS(cuda::check_arguments(a, cuda::partition_rule{}),
                       doctest::Contains("v.scales must not be null"), bad_argument);
}

TEST_CASE("a workspace that is null, misaligned or too small") {
  alignas(16) std::byte memory[64];
  const auto says = [&](const void* at, std::size_t bytes, const char* what) {
    CHECK_THROWS_WITH_AS(cuda::check_workspace(at, bytes, 64), doctest::Contains(what),
                         bad_argument);
  };
  says(nullptr, 64, "workspace must not be null");
  says(memory + 8, 64, "workspace must be aligned to 16 bytes");
  says(memory, 63, "workspace must have 64 bytes, has 63");
  cuda::check_workspace(memory, 64, 64);
}

TEST_CASE("tables that are wrong are found, with the place") {
  const auto report = [](const std::function<void(small_batch&, arguments&)>& spoil) {
    small_batch batch;
    arguments a = batch.get();
    spoil(batch, a);
    cuda::table_report r;
    test::run_on_emulated_gpu(2, cuda::cta_threads, 16, 1, [&](test::emulated_lane& lane) {
      cuda::table_check<test::emulated_lane, fp16, float>(lane, a, &r).run();
    });
    try {
      cuda::throw_if_bad(r, 1);
    } catch (const bad_argument& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  const auto says = [](const std::string& text, const std::string& part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  CHECK(report([](small_batch&, arguments&) {}).empty());
  says(report([](small_batch& b, arguments&) { b.table[3] = 6; }), "k.table has an entry");
  says(report([](small_batch& b, arguments&) { b.table[3] = 6; }), "[sequence 1, head 0, page 1]");
  says(report([](small_batch& b, arguments&) { b.tokens[0] = 33; }),
       "[sequence 0, head 0, tokens 33]");
  const std::vector<std::uint32_t> list(64, 3);
  const std::vector<std::uint32_t> counts{2, 1};
  says(report([&](small_batch&, arguments& a) {
         a.listed = list.data();
         a.listed_counts = counts.data();
         a.list_stride = 32;
       }),
       "listed has a token");
}

TEST_CASE("a kernel that meets a wrong table reads nothing out of bounds, and says so") {
  for (const bool length : {false, true}) {
    small_batch batch;
    if (length) {
      batch.tokens[0] = 1'000'000'000;
    } else {
      batch.table[1] = 0xFFFF'FFFFu;
    }
    const arguments a = batch.get();
    const cuda::partition_rule rule;
    std::vector<cuda::float_quad> memory(cuda::attend_workspace::bytes(a.sizes, rule, 3, 64) / 16);
    const auto work = cuda::attend_workspace::in(memory.data(), a.sizes, rule, 3);
    test::run_on_emulated_gpu(
        3, cuda::cta_threads, cuda::tile_shape<fp16, 64>::shared_bytes, 1,
        [&](test::emulated_lane& lane) {
          cuda::attend_kernel<test::emulated_lane, fp16, float, 64>(lane, a, rule, work).run();
        });
    CHECK(*work.status == (length ? cuda::token_beyond_table : cuda::page_out_of_range));
    CHECK(std::ranges::all_of(batch.out, [](float x) { return x == 0.0f; }));  // of zeros
  }
}

TEST_CASE("the workspace of balanced launches does not depend on the batch") {
  const cuda::partition_rule rule;
  const auto bytes = [&](std::uint32_t sequences, std::uint32_t tokens) {
    return cuda::attend_workspace::bytes({sequences, 8, 8, tokens}, rule, 264, 128);
  };
  CHECK(bytes(1, 100) == bytes(256, 1'000'000));
  CHECK(bytes(1, 1) == 16 + 528 * 4 + 528 * 8 * 130 * 4);  // 2.2 MB
}

}  // namespace instinfer::test_checks
