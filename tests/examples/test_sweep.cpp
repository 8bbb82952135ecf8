// The sweep from end to end: its rows against direct calls of flash::engine, whatever the number of
// threads; CSV and JSON; ranges, and errors that name the parameter.

#include <doctest/doctest.h>

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "instinfer/layout/dim_indexed.hpp"
#include "support/rows.hpp"
#include "support/sweep.hpp"
#include "tests/support/shared_timelines.hpp"

namespace instinfer::test_sweep {

using namespace examples;

namespace {

std::vector<swept> axes(const std::vector<std::pair<std::string, std::string>>& given) {
  std::vector<swept> all;
  for (const auto& [name, text] : given) {
    const parameter& what = parameter_of(name);
    all.push_back({&what, value_list::of(what, text)});
  }
  return all;
}

std::vector<double> numbers(const std::string& name, const std::string& text) {
  std::vector<double> all;
  for (const value& v : value_list::of(parameter_of(name), text)) {
    all.push_back(std::get<double>(v));
  }
  return all;
}

std::string refusal(const std::string& name, const std::string& text) {
  try {
    (void)value_list::of(parameter_of(name), text);
  } catch (const bad_argument& e) {
    return e.what();
  }
  return "taken";
}

// A batch on an engine as a user would write it.
template <class D, class Arbitration = flash::data_out_first>
flash::receipt attend(const flash::drive_spec& drive, const typename D::attention_policy& policy,
                      int heads, std::uint32_t tokens, int batch,
                      const flash::drive_rules& rules = {}) {
  using engine = flash::engine<D, kv_format<fp16, 128>, flash::random_selection, Arbitration>;
  engine clock(
      {.layers = 1, .q_heads = heads, .kv_heads = heads},
      {.bytes = static_cast<std::uint64_t>(drive.geometry.bytes()) / 40, .context_tokens = tokens},
      policy, {}, drive, {}, rules);
  const std::vector<float> q(static_cast<std::size_t>(heads) * 128);
  std::vector<float> out(q.size());
  std::vector<typename engine::request> requests;
  for (int s = 0; s < batch; ++s) {
    const sequence seq = clock.open();
    clock.append_count(seq, 0, tokens);
    requests.push_back({seq, q, out});
  }
  return clock.attend_batch(0, requests);
}

void check_same(const design_point& point, const flash::receipt& expected) {
  const design_point p = resolved(point);
  const step_cost cost = cost_of(p);
  CHECK(cost.step.total_ns() == expected.total_ns());
  CHECK(cost.step.link_ns == expected.link_ns);
  CHECK(cost.step.traffic == expected.traffic);
  REQUIRE(cost.step.phases.size() == expected.phases.size());
  for (std::size_t i = 0; i < expected.phases.size(); ++i) {
    CHECK(cost.step.phases[i].pages == expected.phases[i].pages);
    CHECK(cost.step.phases[i].total() == expected.phases[i].total());
  }
  const auto row = row_of(p, cost);
  CHECK(row["step_us"].get<double>() == doctest::Approx(expected.total_ns() * 1e-3));
  CHECK(row["pages"].get<std::uint64_t>() == expected.traffic.pages_read);
  CHECK(row["filtered_bytes"].get<std::uint64_t>() == expected.traffic.filtered_bytes);
  CHECK(row["link_bytes"].get<std::uint64_t>() == expected.traffic.link_bytes);
  CHECK(row["tokens_per_s"].get<double>() ==
        doctest::Approx(p.batch / (40 * expected.total_ns() * 1e-9)));
  CHECK(row["skipped"].get<std::string>().empty());
}

// Fields of CSV (RFC 4180), a line each row.
std::vector<std::vector<std::string>> read_csv(const std::string& text) {
  std::vector<std::vector<std::string>> rows(1, {""});
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      if (quoted && i + 1 < text.size() && text[i + 1] == '"') {
        rows.back().back() += '"';
        ++i;
      } else {
        quoted = !quoted;
      }
    } else if (c == ',' && !quoted) {
      rows.back().emplace_back();
    } else if (c == '\n' && !quoted) {
      rows.push_back({""});
    } else if (c != '\r' || quoted) {
      rows.back().back() += c;
    }
  }
  REQUIRE(rows.back() == std::vector<std::string>{""});
  rows.pop_back();
  return rows;
}

}  // namespace

TEST_CASE("sweep: a point is the engine of the design that it names") {
  const design_point small{.context = 1500, .batch = 3, .heads = 5};
  const auto with = [&](auto&& change) {
    design_point p = small;
    change(p);
    return p;
  };
  SUBCASE("SparF on the paper's drive") {
    check_same(small, attend<insta_sparf>(flash::instcsd, {}, 5, 1500, 3));
  }
  SUBCASE("dense on token-indexed pages") {
    check_same(with([](design_point& p) {
                 p.attention = "dense";
                 p.layout = "token_indexed";
               }),
               attend<insta>(flash::instcsd, {}, 5, 1500, 3));
  }
  SUBCASE("SparQ at 1/4, dim-indexed pages of 4 dims") {
    using d = design<attention::sparq, layout::dim_indexed<4096, 4>, flash::instcsd,
                     transfer::in_storage>;
    check_same(with([](design_point& p) {
                 p.attention = "sparq";
                 p.compression = 4;
                 p.layout = "dim_indexed";
                 p.dims = 4;
               }),
               attend<d>(flash::instcsd, attention::sparq::at_compression(4), 5, 1500, 3));
  }
  SUBCASE("commands first, with and without cache read") {
    for (const bool cache_read : {false, true}) {
      check_same(with([&](design_point& p) {
                   p.arbitration = "command_first";
                   p.cache_read = cache_read ? "yes" : "no";
                 }),
                 attend<insta_sparf, flash::command_first>(flash::instcsd, {}, 5, 1500, 3,
                                                           {.cache_read = cache_read}));
    }
  }
  SUBCASE("planes that read independently") {
    check_same(with([&](design_point& p) { p.pairing = "any"; }),
               attend<insta_sparf>(flash::instcsd, {}, 5, 1500, 3, flash::independent_planes));
  }
  SUBCASE("codewords of 1 KiB") {
    constexpr flash::drive_spec drive = [] {
      flash::drive_spec spec = flash::instcsd;
      spec.geometry.codeword_bytes = 1024;
      return spec;
    }();
    check_same(
        with([](design_point& p) {
          p.codeword_kib = 1;
          p.transfer = "codeword";
        }),
        attend<insta_sparf>(drive, {}, 5, 1500, 3, {.transfer = flash::transfer_size::codeword}));
  }
  SUBCASE("the three routes to the GPU, on a drive without an engine") {
    const auto over = [&](const char* route) {
      return with([&](design_point& p) {
        p.drive = "pcie4_ssd";
        p.attention = "dense";
        p.layout = "token_indexed";
        p.route = route;
      });
    };
    using direct =
        design<attention::dense, layout::token_indexed<>, flash::pcie4_ssd, transfer::gpu_direct>;
    using peer =
        design<attention::dense, layout::token_indexed<>, flash::pcie4_ssd, transfer::peer_to_peer>;
    check_same(over("host_bounce"), attend<flexgen>(flash::pcie4_ssd, {}, 5, 1500, 3));
    check_same(over("gpu_direct"), attend<direct>(flash::pcie4_ssd, {}, 5, 1500, 3));
    check_same(over("peer_to_peer"), attend<peer>(flash::pcie4_ssd, {}, 5, 1500, 3));
    const auto row = evaluated(resolved(over("host_bounce")));
    CHECK(row["bottleneck"] == "link");
    CHECK(row["link_us"].get<double>() <= row["step_us"].get<double>() * (1 + 1e-12));
  }
  SUBCASE("16 KiB pages on another drive, with units to its rate") {
    constexpr flash::drive_spec drive = [] {
      flash::drive_spec spec = flash::pcie5_16ch;
      spec.geometry.page_bytes = 16'384;
      spec.geometry.blocks /= 4;
      spec.geometry.chips = 2;
      spec.timing.read_ps = 25 * flash::ps_per_us;
      spec.timing.bus_bytes_per_s = 1'600'000'000;
      return spec;
    }();
    flash::drive_spec scaled = drive;
    scaled.units = flash::accelerator_for(drive);
    using d = design<attention::sparf, layout::dual<16'384, 8>, drive, transfer::in_storage>;
    check_same(with([](design_point& p) {
                 p.drive = "pcie5_16ch";
                 p.page_kib = 16;
                 p.chips = 2;
                 p.tr_us = 25;
                 p.bus_gb_s = 1.6;
                 p.units = "scaled";
                 p.dims = 8;
               }),
               attend<d>(scaled, {}, 5, 1500, 3));
  }
}

TEST_CASE("sweep: the bottleneck by name, with the bounds beside it") {
  // K and V of 8 sequences, 8 heads, 4096 tokens: 67.1 M entries, 2 FLOP each on two kernels of
  // 12.7 GFLOPS; a score a token, 5 FLOP each on 57 units of 14.2 MFLOPS.
  design_point p{.drive = "pcie5_16ch", .tr_us = 20, .attention = "dense", .context = 4096};
  p.heads = 8;
  const double tokens = 8.0 * 8 * 4096;
  auto row = evaluated(resolved(p));
  const auto us = [&](const char* name) { return row[name].get<double>(); };
  CHECK(us("gemv_us") == doctest::Approx(tokens * 256 * 2 / 25.4e3));
  CHECK(us("softmax_us") == doctest::Approx(tokens * 5 / (57 * 14.2)));
  CHECK(us("filter_us") == doctest::Approx(tokens * 512 / 16 / 1.85e3));
  CHECK(us("bus_us") >= tokens * 512 / 16 / 2.4e3);
  CHECK(row["bottleneck"] == "GeMV");
  CHECK(us("bottleneck_share") > 0.99);
  CHECK(us("gemv_us") + us("softmax_us") ==
        doctest::Approx(us("logit_0_us") + us("logit_us") + us("attend_us")));
  // Units to the drive's rate hold up nothing, whatever the group and the page size.
  for (const double group : {1.0, 4.0}) {
    for (const double page_kib : {4.0, 16.0}) {
      p.units = "scaled";
      p.group = group;
      p.page_kib = page_kib;
      row = evaluated(resolved(p));
      CAPTURE(row.dump());
      CHECK(us("bus_us") >= us("gemv_us"));
      CHECK(us("bus_us") >= us("filter_us"));
      CHECK(row["bottleneck"] == "bus");
    }
  }
}

TEST_CASE("sweep: the convoy of docs/drive-model.md, and where it breaks") {
  const auto row = [](const char* arbitration, double bus_gb_s) {
    design_point p{.bus_gb_s = bus_gb_s, .arbitration = arbitration, .attention = "dense"};
    return evaluated(resolved(p));
  };
  const auto ms = [](const nlohmann::ordered_json& of, const char* name) {
    return of[name].get<double>() * 1e-3;
  };
  // The filter takes 1.85 GB/s. Below that rate the bus never waits for it.
  const auto convoy = row("data_out_first", 1.84);
  CHECK(convoy["bottleneck"] == "array+bus");
  CHECK(ms(convoy, "step_us") == doctest::Approx(37.5).epsilon(0.01));
  CHECK(ms(convoy, "step_us") < ms(convoy, "array_us") + ms(convoy, "bus_us"));
  const auto broken = row("data_out_first", 1.85);
  CHECK(broken["bottleneck"] == "bus");
  CHECK(ms(broken, "step_us") == doctest::Approx(27.6).epsilon(0.01));
  CHECK(ms(broken, "bus_us") == doctest::Approx(27.5).epsilon(0.01));
  // With commands first there is no convoy and no step.
  for (const double rate : {1.84, 1.85}) {
    const auto smooth = row("command_first", rate);
    CHECK(smooth["bottleneck"] == "bus");
    CHECK(ms(smooth, "step_us") < 1.01 * ms(smooth, "bus_us"));
  }
}

TEST_CASE("sweep: rows do not depend on threads or ranks; CSV and JSON say the same") {
  const std::vector<design_point> points = combinations(axes({{"channels", "2:8:x2"},
                                                              {"page_kib", "4,16"},
                                                              {"attention", "dense,sparf"},
                                                              {"compression", "4,8"},
                                                              {"context", "500"},
                                                              {"batch", "1,2"},
                                                              {"heads", "3"}}));
  CHECK(points.size() == 3 * 2 * 3 * 2);  // dense has one compression
  const row_list rows = evaluate(points, 1);
  REQUIRE(rows.size() == points.size());
  CHECK(evaluate(points, 4) == rows);
  CHECK(evaluate(points, 64) == rows);
  for (const std::size_t ranks : {2u, 5u, 100u}) {
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      const row_list part = evaluate(points, 2, rank, ranks);
      for (std::size_t i = 0; i < part.size(); ++i) {
        REQUIRE(part[i] == rows[rank + i * ranks]);
      }
      REQUIRE(part.size() == (points.size() + ranks - 1 - rank) / ranks);
    }
  }
  std::size_t last = 0;
  evaluate(points, 2, 0, 1, [&](std::size_t done) {
    CHECK(done >= last);
    last = done;
  });
  CHECK(last == points.size());

  std::ostringstream csv, json;
  write_csv(rows, csv);
  write_json(rows, json);
  CHECK(nlohmann::ordered_json::parse(json.str()).get<row_list>() == rows);
  const auto lines = read_csv(csv.str());
  REQUIRE(lines.size() == rows.size() + 1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    REQUIRE(lines[i + 1].size() == lines[0].size());
    std::size_t column = 0;
    for (const auto& [name, x] : rows[i].items()) {
      CHECK(lines[0][column] == name);
      CHECK(lines[i + 1][column] == (x.is_string() ? x.get<std::string>() : x.dump()));
      ++column;
    }
  }
}

TEST_CASE("sweep: what cannot be is skipped, and the row says why") {
  const auto why = [](const design_point& p) {
    const auto row = evaluated(resolved(p));
    CHECK(row["step_us"].is_null());
    return row["skipped"].get<std::string>();
  };
  const auto starts = [](const std::string& text, const std::string& begin) {
    CAPTURE(text);
    CHECK(text.starts_with(begin));
  };
  starts(why({.drive = "tlc_ssd", .page_kib = 8}),
         "page_kib: the preset's 2731 blocks of 4096-byte pages do not divide");
  starts(why({.drive = "tlc_ssd", .tr_us = 20}), "tr_us: tlc_ssd has 3 types of pages");
  starts(why({.drive = "pcie4_ssd"}), "units: pcie4_ssd has no engine");
  starts(why({.page_kib = 32}), "page_kib: layouts are built for 4, 8 and 16 KiB pages");
  starts(why({.channels = 1, .chips = 1, .dies = 1, .planes = 1, .context = 1e6, .heads = 40}),
         "append: 1000000 tokens need 7498560 pages, the drive has ");
  // The others are not disturbed.
  const auto points = combinations(
      axes({{"drive", "instcsd,pcie4_ssd"}, {"context", "300"}, {"heads", "2"}, {"batch", "1"}}));
  const row_list rows = evaluate(points, 2);
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["skipped"] == "");
  CHECK(rows[1]["skipped"] != "");
  std::ostringstream csv;
  write_csv(rows, csv);
  CHECK(read_csv(csv.str()).size() == 3);
}

TEST_CASE("sweep: lists and ranges") {
  CHECK(numbers("channels", "8") == std::vector<double>{8});
  CHECK(numbers("channels", "4,16,8") == std::vector<double>{4, 16, 8});
  CHECK(numbers("channels", "2:5") == std::vector<double>{2, 3, 4, 5});
  CHECK(numbers("channels", "4:33:x2") == std::vector<double>{4, 8, 16, 32});
  CHECK(numbers("channels", "4:12:4,0") == std::vector<double>{4, 8, 12, 0});
  CHECK(numbers("bus_gb_s", "1:1.4:0.1").size() == 5);
  CHECK(numbers("bus_gb_s", "1:1.4:0.1").back() == doctest::Approx(1.4));
  CHECK(refusal("channels", "8:4") == "channels: an empty range in \"8:4\"");
  CHECK(refusal("channels", "") == "channels: an empty value in \"\"");
  CHECK(refusal("channels", "4,,8") == "channels: an empty value in \"4,,8\"");
  CHECK(refusal("channels", "many") == "channels: \"many\" is not a number in \"many\"");
  CHECK(refusal("channels", "4x") == "channels: \"4x\" is not a number in \"4x\"");
  CHECK(refusal("channels", "-4") ==
        "channels: whole numbers in [1, 1024] are wanted, got -4 in \"-4\"");
  CHECK(refusal("channels", "2.5").starts_with("channels: whole numbers"));
  CHECK(refusal("channels", "1:4:0").starts_with("channels: a step must be above 0"));
  CHECK(refusal("channels", "1:4:x1").starts_with("channels: a step must be above 0, a factor"));
  CHECK(refusal("bus_gb_s", "1:1000:1e-9").starts_with("bus_gb_s: more than 100000 values"));
  CHECK(refusal("context", "0").starts_with("context: whole numbers in [1, "));
  CHECK(refusal("dims", "3").starts_with("dims: pages hold 2, 4 or 8 dims"));
  CHECK(
      refusal("layout", "triple") ==
      "layout: unknown \"triple\", one of token_indexed dual dim_indexed is wanted in \"triple\"");
  CHECK_THROWS_WITH_AS(parameter_of("chanels"), doctest::Contains("no parameter \"chanels\""),
                       bad_argument);
  CHECK_THROWS_WITH_AS(combinations(axes({{"context", "1:2000"}, {"batch", "1:2000"}})),
                       doctest::Contains("more than 1000000 points at batch"), bad_argument);
}

}  // namespace instinfer::test_sweep
