// Fused and latent rows on the modelled drive: a page crosses the bus once, and its entries of K
// and of V are both multiplied.

#include <doctest/doctest.h>

#include <vector>

#include "instinfer/codec/fp8_latent_rows.hpp"
#include "instinfer/flash/engine.hpp"
#include "instinfer/layout/fused.hpp"

namespace instinfer::test_shared_pages {

namespace {

template <class Policy, class Layout, class Route = transfer::in_storage,
          auto Drive = flash::instcsd>
using on = design<Policy, Layout, Drive, Route>;
template <class Policy>
using separate = on<Policy, layout::token_indexed<>>;
template <class Policy>
using fused = on<Policy, layout::fused<>>;

template <class D, class Format = kv_format<>>
flash::receipt attend(std::uint32_t tokens, const flash::drive_rules& rules = {},
                      const typename D::attention_policy& policy = {}) {
  flash::engine<D, Format> engine({.layers = 1, .q_heads = 8, .kv_heads = 4},
                                  {.bytes = 64 << 20, .context_tokens = tokens}, policy, {},
                                  D::drive, {}, rules);
  const sequence seq = engine.open();
  engine.append_untimed(seq, 0, tokens);
  const std::vector<float> q(8 * Format::k_dim, 1.0f);
  std::vector<float> out(8 * Format::v_dim);
  return engine.attend(seq, 0, q, out);
}

}  // namespace

TEST_CASE("dense: fused rows move the same pages and entries as separate rows") {
  const flash::receipt apart = attend<separate<attention::dense>>(1600);
  const flash::receipt together = attend<fused<attention::dense>>(1600);
  // 1600 tokens of 4 heads: 100 pages of K and 100 of V a head, or 200 of both.
  CHECK(apart.traffic.pages_read == 4 * 200);
  CHECK(together.traffic == apart.traffic);
  // The kernels multiply the same entries, half of them with K. A part of a picosecond a page is
  // lost to rounding.
  for (const flash::unit u : {flash::unit::logit, flash::unit::attend}) {
    CHECK(together.units[u] == doctest::Approx(apart.units[u]).epsilon(1e-4));
    CHECK(together.units[u] > 0);
  }
  CHECK(together.units[flash::unit::filter] ==
        doctest::Approx(apart.units[flash::unit::filter]).epsilon(0.05));
  CHECK(together.phases.size() == 1);
  CHECK(together.phases[0].pages == 800);
  // No unit waits for pages of another kind, so the time is about the same.
  CHECK(together.attention_ns == doctest::Approx(apart.attention_ns).epsilon(0.1));
}

TEST_CASE("a tail in the group buffer: each byte leaves the DRAM once") {
  const flash::receipt apart = attend<separate<attention::dense>>(5);
  const flash::receipt together = attend<fused<attention::dense>>(5);
  CHECK(together.traffic == apart.traffic);
  CHECK(together.units[flash::unit::dram] ==
        doctest::Approx(apart.units[flash::unit::dram]).epsilon(1e-3));
}

TEST_CASE("fp8 latent rows: a row is 656 bytes in flash and behind the filter") {
  using rows = latent_format<fp8_latent_rows, 576, 512>;
  using in_bf16 = latent_format<bf16, 576, 512>;
  const flash::receipt coded = attend<separate<attention::dense>, rows>(1200);
  const flash::receipt wide = attend<separate<attention::dense>, in_bf16>(1200);
  CHECK(coded.traffic.pages_read == 4 * 200);  // 6 rows a page of 4 KiB, 4 heads
  CHECK(wide.traffic.pages_read == 4 * 400);   // 3 rows
  CHECK(coded.traffic.filtered_bytes == 4 * 1200 * 656);
  CHECK(wide.traffic.filtered_bytes == 4 * 1200 * 1152);
  // The kernels multiply the same entries.
  CHECK(coded.units[flash::unit::logit] ==
        doctest::Approx(wide.units[flash::unit::logit]).epsilon(1e-3));
  CHECK(coded.units[flash::unit::logit] > 0);
}

TEST_CASE("latent rows: each byte crosses the bus once, and takes part in two products") {
  using latent = latent_format<fp16, 128, 128>;
  using plain = kv_format<fp16, 128>;
  const flash::receipt rows = attend<separate<attention::dense>, latent>(1600);
  const flash::receipt both = attend<separate<attention::dense>, plain>(1600);
  CHECK(rows.traffic.pages_read * 2 == both.traffic.pages_read);
  CHECK(rows.traffic.filtered_bytes * 2 == both.traffic.filtered_bytes);
  CHECK(rows.units[flash::unit::logit] ==
        doctest::Approx(both.units[flash::unit::logit]).epsilon(1e-4));
  CHECK(rows.units[flash::unit::attend] ==
        doctest::Approx(both.units[flash::unit::attend]).epsilon(1e-4));
  CHECK(attend<separate<attention::dense>, latent>(5).traffic.buffer_bytes * 2 ==
        attend<separate<attention::dense>, plain>(5).traffic.buffer_bytes);
}

TEST_CASE("sparf: scattered tokens take fewer pages if rows are fused") {
  using apart = on<attention::sparf, layout::dual<>>;
  using together = on<attention::sparf, layout::fused_dual<>>;
  const flash::receipt a = attend<apart>(4000);
  const flash::receipt b = attend<together>(4000);
  CHECK(b.traffic.pages_read < a.traffic.pages_read);
  CHECK(b.traffic.filtered_bytes == a.traffic.filtered_bytes);
}

TEST_CASE("a host route: fused pages go up once") {
  using apart =
      on<attention::dense, layout::token_indexed<>, transfer::host_bounce, flash::pcie4_ssd>;
  using together = on<attention::dense, layout::fused<>, transfer::host_bounce, flash::pcie4_ssd>;
  CHECK(attend<together>(1605).traffic == attend<apart>(1605).traffic);
}

TEST_CASE("codewords of a fused page: from the first entry of K to the last of V") {
  const layout::tiling tiles = layout::fused<>::tiles<kv_format<>>(4096);
  const flash::geometry four_a_page{.codeword_bytes = 1024};
  flash::attend_work work;
  const flash::wanted_codewords codewords{tiles, four_a_page, 2};
  access_plan plan;
  auto token = plan.begin_slice();
  plan.add_run(token, 1, 2);  // bytes [512, 1024) of the page: K [512, 768), V [768, 1024)
  auto dims = plan.begin_slice();
  plan.add_run(dims, 0, 128);
  page_read read{.page = page_id{7}, .tokens = token, .dims = dims};
  plan.add(read);
  read.kind = stream::v_by_token;
  read.shares = sharing::page;
  plan.add(read);
  auto later = plan.begin_slice();
  plan.add_run(later, 1, 3);  // and those of token 2: to byte 1536
  read.tokens = later;
  read.kind = stream::k_by_token;
  read.shares = sharing::nothing;
  plan.add(read);
  read.kind = stream::v_by_token;
  read.shares = sharing::page;
  plan.add(read);
  flash::attend_recorder recorder(work, 2, 128, codewords);
  auto head = recorder.head(0);
  head.accessed(attention::operation::fold, plan);
  REQUIRE(work.pages.size() == 2);
  CHECK(work.pages[0].codewords == 1);
  CHECK(work.pages[1].codewords == 2);
  CHECK(work.pages[0].elements == 256);
  CHECK(work.pages[0].values == 128);
  CHECK(work.pages[0].in_step() == 128);
  CHECK(plan.bytes(4096, entry_size_of<plain_pages<fp16>>).pages_read == 2);
}

}  // namespace instinfer::test_shared_pages
