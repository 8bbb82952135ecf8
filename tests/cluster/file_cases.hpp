#pragma once
// Files of clusters are those of one engine, whatever the split and the number of drives.

#include "tests/cluster/cases.hpp"

namespace instinfer::test {

// Its blocks are two pages of K of 32 tokens.
inline const cluster::by_tokens whole_pages{.block = 64};

template <class Engine, class Split>
void check_files(const Split& split, double tolerance, const store::capacity& capacity = memory) {
  for (const cluster::options& role : roles()) {
    CAPTURE(role.host_holds);
    if (!can_share(split, role)) {
      continue;
    }
    many<Engine, Split> c(MPI_COMM_WORLD, shape, capacity, {}, {}, split, role);
    on_host(c, [&] {
      Engine one(shape, capacity);
      beside_one_engine both(c, one, 2, tolerance);
      const auto empty = both.open();
      const auto a = both.open();
      both.append_all(a, 333);
      both.append(a, 1, 7);
      both.reclaim(a, store::reclaim_range{.tokens_before = 130});
      both.append_all(a, 90);
      both.move_to(empty, both.open());
      const auto b = both.open();
      both.move_to(a, b);
      both.attend({b, a}, 0, 2);
      both.attend({a, b}, 1, 1);
      both.append_all(b, 40);
      both.decode(b, 1, 1);
      both.reclaim(b, store::reclaim_range{.tokens_before = 400});
      both.move_to(b, both.open());
    });
  }
}

TEST_CASE("a cluster writes the file of one engine, and each loads the other's") {
  // Numbers for 384 tokens of a layer: one engine numbers them anew, drives with some of the tokens
  // do so later.
  const store::capacity few_numbers{
      .bytes = 24 << 20, .context_tokens = 1024, .address = address_codec({.token = 12})};
  check_files<dense>(cluster::by_heads{}, 0, few_numbers);
  check_files<sparf>(cluster::by_heads{}, 0);
  check_files<dense>(cluster::by_sequences{}, 0);
  check_files<dense>(cluster::by_heads_and_sequences{.head_groups = 2}, 0);
  check_files<dense>(whole_pages, 1e-5, few_numbers);
  check_files<dense>(cluster::by_heads_and_tokens{.head_groups = 2, .block = 32}, 1e-5);
}

TEST_CASE("a file that one number of drives saved loads on another, with the same bits") {
  const auto check = [&](auto split, double tolerance) {
    using cluster_type = many<dense, decltype(split)>;
    const cluster::options role{.host_holds = true};
    dense one(shape, memory);
    std::vector<float> q(14 * 64, 0.25f);
    const sequence expected = one.open();
    std::stringstream file;
    MPI_Comm fewer;  // the first ranks: one less than all
    const bool in = world_rank() < std::max(1, world_size() - 1);
    MPI_Comm_split(MPI_COMM_WORLD, in ? 0 : MPI_UNDEFINED, world_rank(), &fewer);
    const auto save_on_fewer = [&] {
      cluster_type c(fewer, shape, memory, {}, {}, split, role);
      on_host(c, [&] {
        const sequence s = c.open();
        std::vector<fp16> rows(150 * 7 * 64);
        for (std::size_t i = 0; i < rows.size(); ++i) {
          rows[i] = from_float<fp16>(static_cast<float>(i * 7 % 31) / 16.0f - 1.0f);
        }
        for (int l = 0; l < 2; ++l) {
          c.append(s, l, rows, rows);
          one.append(expected, l, rows, rows);
        }
        c.save(s, file);
      });
    };
    const auto attend_on = [&](MPI_Comm ranks) {
      cluster_type c(ranks, shape, memory, {}, {}, split, role);
      on_host(c, [&] {
        const sequence s = c.open();
        c.load(s, file);
        std::vector<float> out(q.size()), expected_out(q.size());
        c.attend(s, 1, q, out);
        one.attend(expected, 1, q, expected_out);
        for (std::size_t i = 0; i < out.size(); ++i) {
          CHECK(std::abs(out[i] - expected_out[i]) <= static_cast<float>(tolerance));
        }
        file.str({});
        c.save(s, file);
      });
    };
    if (in) {
      save_on_fewer();
    }
    attend_on(MPI_COMM_WORLD);
    if (in) {
      attend_on(fewer);
      MPI_Comm_free(&fewer);
    }
  };
  check(cluster::by_heads{}, 0);
  check(cluster::by_sequences{}, 0);
  check(whole_pages, 1e-5);
}

TEST_CASE("what a cluster refuses of a file, with the sentence of one engine") {
  const auto message = [](auto& engine, sequence seq, const std::string& bytes, const char* model) {
    std::istringstream file(bytes);
    try {
      engine.load(seq, file, model);
    } catch (const bad_file& e) {
      return std::string(e.what());
    }
    return std::string("loaded");
  };
  many<dense, cluster::by_heads> c(MPI_COMM_WORLD, shape, memory, {}, {}, {}, {.host_holds = true});
  on_host(c, [&] {
    dense one(shape, memory);
    beside_one_engine both(c, one, 3);
    const auto s = both.open();
    both.append_all(s, 90);
    std::ostringstream saved;
    one.save(s.one, saved, "tiny");
    const std::string whole = saved.str();
    const auto refused = [&](const std::string& bytes, const char* model) {
      const auto to = both.open();
      CHECK(message(c, to.many, bytes, model) == message(one, to.one, bytes, model));
      CHECK(message(c, to.many, bytes, model) != "loaded");
      CHECK(c.positions(to.many, 0) == 0);
      both.append_all(to, 3);
      both.attend({to}, 0, 1);
    };
    refused(whole, "big");
    refused(whole.substr(0, whole.size() / 2), "tiny");
    refused("instcl", "tiny");
    for (const std::size_t at : {std::size_t{30}, whole.size() / 3, whole.size() - 9}) {
      std::string damaged = whole;
      damaged[at] ^= 1;
      refused(damaged, "tiny");
    }
    dense other({.layers = 2, .q_heads = 12, .kv_heads = 6}, memory);
    std::ostringstream of_other;
    other.save(other.open(), of_other, "tiny");
    refused(of_other.str(), "tiny");

    std::istringstream file(whole);
    CHECK_THROWS_WITH_AS(c.load(s.many, file, "tiny"),
                         "load: the sequence has 90 tokens already; open another one",
                         bad_argument);
    std::ostringstream unwritable;
    unwritable.setstate(std::ios::badbit);
    CHECK_THROWS_AS(c.save(s.many, unwritable), bad_file);
    both.attend({s}, 1, 2);
  });
}

TEST_CASE("a file needs the tokens of a page on one drive") {
  if (world_size() == 1) {
    return;  // a single drive has all tokens
  }
  std::string bytes;
  const auto check = [&](const cluster::by_tokens& split, auto&& then) {
    many<dense, cluster::by_tokens> c(MPI_COMM_WORLD, shape, memory, {}, {}, split,
                                      {.host_holds = true});
    on_host(c, [&] {
      const sequence s = c.open();
      const std::vector<fp16> rows(90 * 7 * 64);
      c.append(s, 0, rows, rows);
      then(c, s);
      CHECK(c.positions(s, 0) == 90);
    });
  };
  check(whole_pages, [&](auto& c, sequence s) {
    std::ostringstream file;
    c.save(s, file);
    bytes = file.str();
  });
  check({.block = 48}, [&](auto& c, sequence s) {
    const std::string why =
        ": tokens [32, 64) of a page lie on several drives (by_tokens, blocks of 48); files need "
        "blocks of a multiple of the tokens of a page";
    std::ostringstream none;
    CHECK_THROWS_WITH_AS(c.save(s, none), ("save" + why).c_str(), bad_argument);
    CHECK(none.view().empty());
    std::istringstream file(bytes);
    CHECK_THROWS_WITH_AS(c.load(c.open(), file), ("load" + why).c_str(), bad_argument);
  });
}

}  // namespace instinfer::test
