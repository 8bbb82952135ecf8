#pragma once
// Engines over a drive that lasts, in a folder that goes with the test, and a decode that every
// step number determines: what tests of commits reopen and compare.

#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "instinfer/drive.hpp"
#include "instinfer/reference.hpp"
#include "own_folder.hpp"

namespace instinfer::test {

inline std::string bytes_of_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline constexpr model_shape lasting_shape{.layers = 2, .q_heads = 2, .kv_heads = 1};
inline constexpr std::uint32_t lasting_channels = 2;
inline constexpr std::uint32_t lasting_page = insta_sparf::layout_policy::page_bytes;
using lasting_format = kv_format<fp16, 64>;
template <class Store>
using lasting_engine_over = engine<insta_sparf, lasting_format, reference::path, Store>;
using lasting_engine = lasting_engine_over<store::drive_files>;
using memory_engine = lasting_engine_over<store::memory>;

// Nobody cuts the power of the test's machine: syncs take no time.
class unsynced_calls : public drive::system_calls {
 public:
  int sync(int /*file*/) override { return 0; }
};
inline unsynced_calls unsynced;

// Requests by the caller's own thread, in an order that is always the same.
inline drive::options lasting_options(const own_folder& folder,
                                      drive::system_calls* calls = &unsynced) {
  return {.folders = {folder.path()},
          .name = "m",
          .direct = false,
          .ring = false,
          .threads = 0,
          .readers = 1,
          .buffer_bytes = 24 * lasting_page,
          .calls = calls};
}

inline store::capacity lasting_room(std::uint32_t pages) {
  return {.bytes = std::uint64_t{pages} * lasting_page, .context_tokens = 64};
}
inline lasting_engine open_lasting(const drive::options& options, std::uint32_t pages) {
  return {lasting_shape, lasting_room(pages),
          store::drive_files(options, lasting_channels, pages / lasting_channels, lasting_page)};
}
inline memory_engine in_memory(std::uint32_t pages) {
  return {lasting_shape, lasting_room(pages), {}, {}, lasting_channels};
}

// A conversation that forgets its oldest tokens, and a fork of it now and then, which makes a
// version of its own and is given up. Step n makes the state after it from the state before, and
// every step appends tokens: so the number of positions tells the step.
template <class Engine>
void take_step(Engine& e, unsigned step) {
  std::mt19937 random(step);
  const auto rows = [&](std::size_t tokens) {
    std::vector<fp16> x(tokens * 64);
    for (fp16& value : x) {
      value = from_float<fp16>(static_cast<float>(random() % 512) / 128 - 2);
    }
    return x;
  };
  const auto append = [&](sequence seq, std::size_t tokens) {
    for (int l = 0; l < lasting_shape.layers; ++l) {
      const std::vector<fp16> k = rows(tokens);
      e.append(seq, l, k, rows(tokens));
    }
  };
  const sequence seq = step == 0 ? e.open() : e.sequences().at(0);
  append(seq, 1 + random() % 40);
  if (e.tokens(seq, 0) > 150) {
    e.reclaim(seq, {.tokens_before = e.positions(seq, 0) - 60});
  }
  if (step % 4 == 1) {
    const sequence fork = e.fork(seq);
    e.truncate(fork, {.tokens = e.positions(fork, 0) - 1});
    append(fork, 37);
  } else if (step % 4 == 3) {
    e.reclaim(e.sequences().at(1));
  }
}

// All that can be seen of an engine: the handles, the numbers of tokens, and the bits of attends.
template <class Engine>
std::vector<float> seen(Engine& e) {
  std::vector<float> all;
  std::vector<float> q(2 * 64);
  std::vector<float> out(q.size());
  for (std::size_t i = 0; i < q.size(); ++i) {
    q[i] = static_cast<float>(i * 37 % 64) / 32 - 1;
  }
  for (const sequence seq : e.sequences()) {
    all.push_back(static_cast<float>(seq.slot));
    all.push_back(static_cast<float>(seq.generation));
    for (int l = 0; l < lasting_shape.layers; ++l) {
      all.push_back(static_cast<float>(e.tokens(seq, l)));
      all.push_back(static_cast<float>(e.positions(seq, l)));
      e.attend(seq, l, q, out);
      all.insert(all.end(), out.begin(), out.end());
    }
  }
  return all;
}

// What is seen after each number of steps, by an engine in memory.
class expected_states {
 public:
  explicit expected_states(std::uint32_t pages) : engine_{in_memory(pages)} {}
  const std::vector<float>& after(std::size_t steps) {
    while (states_.size() <= steps) {
      if (!states_.empty()) {
        take_step(engine_, static_cast<unsigned>(states_.size() - 1));
      }
      states_.push_back(seen(engine_));
    }
    return states_[steps];
  }
  // The number of steps after which this is seen, from `first` to `last`; none: last + 1.
  std::size_t find(const std::vector<float>& what, std::size_t first, std::size_t last) {
    while (first <= last && after(first) != what) {
      ++first;
    }
    return first;
  }

 private:
  memory_engine engine_;
  std::vector<std::vector<float>> states_;
};

}  // namespace instinfer::test
