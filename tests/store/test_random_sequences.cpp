// Random appends, attends, forks, truncations, reclaims, saves and loads of several sequences,
// against plain vectors of tokens.
//
// INSTINFER_LONG=SEED runs 10,000 steps with that seed in place of the quick test's.

#include <doctest/doctest.h>

#include <cstdlib>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "instinfer/flash/ftl_store.hpp"
#include "tests/support/long_run.hpp"
#include "tests/support/plain_cache.hpp"
#include "tests/support/shared_attends.hpp"

namespace instinfer::test_random_sequences {

namespace {

using format = kv_format<fp16, 64>;
constexpr int layers = 2;
constexpr std::size_t kv_heads = 2, q_heads = 4;

// All dims and tokens: attention over all live tokens, by way of all three streams.
const attention::sparf everything{.keep_dims = 1.0, .keep_tokens = 1.0};

// 2 channels x 2 chips x 2 planes x 16 blocks x 8 pages, with contents.
constexpr flash::geometry small{
    .channels = 2, .chips = 2, .dies = 1, .planes = 2, .blocks = 16, .pages = 8};
constexpr flash::drive_spec small_drive = [] {
  flash::drive_spec drive = flash::instcsd;
  drive.geometry = small;
  return drive;
}();
using on_small = design<attention::sparf, layout::dual<>, small_drive, transfer::in_storage>;
using in_memory = cpu::engine<on_small, format>;
using on_flash = engine<on_small, format, cpu::path,
                        flash::ftl_store<small, flash::greedy_pages{}, flash::page_array>>;

// Addresses of 16 tiles of 32 tokens: the oldest go before, and numbers begin anew at a multiple of
// 256, which K by dim has in a tile.
const store::capacity room{.bytes = 300 * 4096,
                           .context_tokens = 256,
                           .address = address_codec({.token = 16}),
                           .buffer_bytes = 3 << 20};
constexpr std::size_t most_live = 240;

struct plain_sequence {
  sequence seq;
  test::plain_tokens<fp16> tokens[layers];
  std::size_t reclaimed[layers]{};

  std::size_t live(int l) const { return tokens[l].size() - reclaimed[l]; }
};

template <class Engine>
class play {
 public:
  explicit play(unsigned seed) : random_(seed) {}

  void run(int steps) {
    for (step_ = 0; step_ < steps; ++step_) {
      CAPTURE(step_);
      if (all_.empty() || (below(20) == 0 && all_.size() < 3)) {
        all_.push_back({engine_.open(), {}, {}});
      }
      one_step(all_[below(all_.size())]);
      if (step_ % 40 == 39) {
        check_everything();
      }
    }
    check_everything();
    while (!all_.empty()) {
      engine_.reclaim(all_.back().seq);
      all_.pop_back();
    }
    check_pages();
    CHECK(engine_.cache().buffered_bytes() == 0);
    // Everything happened, and often.
    for (const int n : done_) {
      CHECK(n >= steps / 100);
    }
    CHECK(renumbered_ > steps / 100);
    CHECK(full_ > 0);
  }

 private:
  enum action { appended, attended, truncated, forgot, forked, loaded, left, actions };

  std::size_t below(std::size_t n) { return random_() % n; }

  void one_step(plain_sequence& s) {
    const std::size_t dice = below(100);
    try {
      dice < 45   ? append(s)
      : dice < 65 ? attend(s, static_cast<int>(below(layers)))
      : dice < 77 ? truncate(s)
      : dice < 85 ? forget(s)
      : dice < 91 ? fork(s)
      : dice < 97 ? save_and_load(s)
                  : leave(s);
    } catch (const drive_full&) {
      ++full_;  // nothing has changed, which later steps see
      leave(all_[below(all_.size())]);
    }
  }

  void append(plain_sequence& s) {
    const std::size_t count = 1 + below(below(3) == 0 ? 90 : 20);
    for (int l = 0; l < layers; ++l) {
      const auto more = test::drawn_tokens<fp16>(random_, count, kv_heads * 64);
      const std::uint64_t base = engine_.cache().at(s.seq, l).base();
      if (s.live(l) + count > most_live) {
        forget(s, l, s.tokens[l].size() - most_live / 2);
      }
      engine_.append(s.seq, l, more.joined(more.k), more.joined(more.v));
      s.tokens[l].append(more);
      renumbered_ += engine_.cache().at(s.seq, l).base() != base ? 1 : 0;
      REQUIRE(engine_.positions(s.seq, l) == s.tokens[l].size());
    }
    ++done_[appended];
  }

  void attend(plain_sequence& s, int l) {
    std::vector<float> q(q_heads * 64);
    for (float& x : q) {
      x = static_cast<float>(static_cast<int>(below(257)) - 128) / 64;
    }
    std::vector<float> out(q.size());
    engine_.attend(s.seq, l, q, out);
    const auto expected = test::plain_attention(s.tokens[l], s.reclaimed[l], q, q_heads, kv_heads);
    for (std::size_t i = 0; i < out.size(); ++i) {
      REQUIRE(std::abs(double{out[i]} - expected[i]) <= 1e-5);  // values up to 1, in fp32
    }
    ++done_[attended];
  }

  // One layer or all, to a position that all of them have.
  void truncate(plain_sequence& s) {
    const auto first = static_cast<std::uint32_t>(below(layers));
    const std::uint32_t end = first + 1 + static_cast<std::uint32_t>(below(layers - first));
    std::size_t least = 0, most = ~std::size_t{0};
    for (std::uint32_t l = first; l < end; ++l) {
      least = std::max(least, s.reclaimed[l]);
      most = std::min(most, s.tokens[l].size());
    }
    if (most >= least) {
      // Mostly few tokens.
      const std::size_t back = below(below(3) == 0 ? most - least + 1 : 12);
      const std::size_t stay = std::max(least, most - std::min(most, back));
      engine_.truncate(s.seq, {first, end, stay});
      for (std::uint32_t l = first; l < end; ++l) {
        s.tokens[l].truncate(stay);
      }
      ++done_[truncated];
    }
    CHECK_THROWS_AS(engine_.truncate(s.seq, {first, end, most + 1}), bad_argument);
    if (least > 0) {
      CHECK_THROWS_AS(engine_.truncate(s.seq, {first, end, least - 1}), bad_argument);
    }
  }

  void forget(plain_sequence& s, int l, std::size_t before) {
    const auto layer = static_cast<std::uint32_t>(l);
    engine_.reclaim(s.seq, {layer, layer + 1, before});
    s.reclaimed[l] = std::max(s.reclaimed[l], before);
  }
  void forget(plain_sequence& s) {
    for (int l = 0; l < layers; ++l) {
      forget(s, l, s.reclaimed[l] + below(s.live(l) / 2 + 1));
    }
    ++done_[forgot];
  }

  void fork(const plain_sequence& s) {
    if (all_.size() < 6) {
      plain_sequence copy = s;
      copy.seq = engine_.fork(s.seq);
      all_.push_back(copy);
      ++done_[forked];
    }
  }

  // The loaded one takes the place of the saved one, which may stay beside it.
  void save_and_load(plain_sequence& s) {
    std::stringstream file;
    engine_.save(s.seq, file, "a model");
    plain_sequence copy = s;
    copy.seq = engine_.open();
    try {
      engine_.load(copy.seq, file, "a model");
    } catch (const drive_full&) {
      engine_.reclaim(copy.seq);
      throw;
    }
    ++done_[loaded];
    if (below(2) == 0 && all_.size() < 6) {
      all_.push_back(copy);
    } else {
      engine_.reclaim(s.seq);
      s = copy;
    }
  }

  void leave(plain_sequence& s) {
    engine_.reclaim(s.seq);
    CHECK_THROWS_AS(engine_.tokens(s.seq, 0), unknown_sequence);
    std::swap(s, all_.back());
    all_.pop_back();
    ++done_[left];
  }

  // The pages that are taken are those in the tables, each once.
  void check_pages() {
    std::set<page_id> pages;
    for (const plain_sequence& s : all_) {
      for (int l = 0; l < layers; ++l) {
        const layout::head_pages head = engine_.cache().at(s.seq, l).head(0);
        for (const stream kind : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
          const auto table = head.of(kind).table;
          pages.insert(table.begin(), table.end());
        }
      }
    }
    pages.erase(no_page);
    const auto& store = engine_.pages();
    REQUIRE(store.capacity_pages() - store.free_pages() == pages.size());
  }

  void check_everything() {
    check_pages();
    for (const plain_sequence& s : all_) {
      for (int l = 0; l < layers; ++l) {
        test::check_stored(engine_.cache(), s.seq, l, s.reclaimed[l], s.tokens[l], 0, 17);
      }
    }
  }

  Engine engine_{{.layers = layers, .q_heads = q_heads, .kv_heads = kv_heads}, room, everything};
  std::mt19937 random_;
  std::vector<plain_sequence> all_;
  int done_[actions]{};
  int renumbered_ = 0;
  int full_ = 0;
  int step_ = 0;
};

}  // namespace

TEST_CASE_TEMPLATE("random calls on several sequences, against vectors of tokens", Engine,
                   in_memory, on_flash) {
  const unsigned seed = test::seed_of_run();
  INFO("seed " << seed);
  if (test::is_long()) {
    MESSAGE("10,000 steps, seed " << seed);
  }
  play<Engine>(seed).run(test::is_long() ? 10'000 : 500);
}

}  // namespace instinfer::test_random_sequences
