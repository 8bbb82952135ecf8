#pragma once
// Attends on a drive whose cache changes meanwhile: their times beside background writes and
// garbage collection.

#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/flash/attend/attend_clock.hpp"
#include "instinfer/flash/background_writes.hpp"
#include "instinfer/ssd/ftl/ftl.hpp"
#include "instinfer/ssd/report/latencies.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::examples {

// Eight sequences on two channels of the paper's drive, with small blocks, that fill it. They
// attend in turn, 200 times in all, with 2 ms of GPU time after each attend. Each attend reads all
// pages of its sequence. Before it each sequence grows by 4 pages. Before every tenth one the
// oldest sequence goes and comes again, as a prompt of four fifths of the length, and another one
// evicts every third page, which other tokens replace.
template <class Policy>
class mixed_load {
 public:
  explicit mixed_load(const Policy& policy, const flash::suspension& suspend = {})
      : pages_{drive_.geometry, flash::ftl<Policy>::most_pages_per_channel(drive_.geometry, policy),
               policy},
        attends_{drive_, {.suspend = suspend}, 1, 2},
        background_{drive_, {.suspend = suspend}},
        live_(8),
        prompt_{pages_.capacity_pages() * 9 / 10 / live_.size()} {
    pages_.record_operations(true);
    for (std::uint32_t of = 0; of < live_.size(); ++of) {
      write(of, prompt_);
    }
    pages_.clear_operations();
  }

  // Of the attends, in ns: as they are, and without the time in which they wait for writes.
  struct attend_ns {
    std::vector<std::int64_t> beside;
    std::vector<std::int64_t> alone;
  };
  attend_ns run() {
    attend_ns all;
    for (std::uint32_t step = 0; step < 200; ++step) {
      change(step);
      flash::call_times done;
      background_.charge(pages_.operations(), done);
      pages_.clear_operations();
      attend(live_[step % live_.size()], done);
      all.beside.push_back(static_cast<std::int64_t>(done.attention_ns));
      all.alone.push_back(static_cast<std::int64_t>(done.attention_ns - done.delay_ns));
      background_.pass(2e6);
    }
    return all;
  }

  double write_amplification() const { return pages_.counters().write_amplification(); }

 private:
  static constexpr flash::drive_spec make_drive() {
    flash::drive_spec drive = flash::instcsd;
    drive.geometry.channels = 2;
    drive.geometry.blocks = 64;
    drive.geometry.pages = 4;
    return drive;
  }

  void write(std::uint32_t of, std::size_t count) {
    for (std::size_t i = 0; i < count && pages_.free_pages() > 0; ++i) {
      live_[of].push_back(pages_.write(of, turn_++));
    }
  }

  void change(std::uint32_t step) {
    if (step % 10 == 9) {
      const std::uint32_t of = step / 10 % static_cast<std::uint32_t>(live_.size());
      for (const page_id page : live_[of]) {
        pages_.release(page);
      }
      live_[of].clear();
      write(of, prompt_ * 4 / 5);
      evict((of + 4) % static_cast<std::uint32_t>(live_.size()));
    }
    for (std::uint32_t of = 0; of < live_.size(); ++of) {
      write(of, 4);
    }
  }

  void evict(std::uint32_t of) {
    std::vector<page_id>& pages = live_[of];
    const std::size_t before = pages.size();
    std::size_t kept = 0;
    for (std::size_t i = 0; i < before; ++i) {
      if (i % 3 == 0) {
        pages_.release(pages[i]);
      } else {
        pages[kept++] = pages[i];
      }
    }
    pages.resize(kept);
    write(of, before - kept);
  }

  // A page is a head's K or V of 16 tokens.
  void attend(const std::vector<page_id>& sequence, flash::call_times& done) {
    work_.clear();
    locations_.clear();
    for (const page_id page : sequence) {
      const auto set = static_cast<std::uint32_t>(work_.sets.size());
      const bool is_v = set % 2 == 1;
      work_.pages.push_back({.page = page, .elements = 2048, .set = set});
      work_.sets.push_back({.pages = 1,
                            .scores = is_v ? 0u : 16u,
                            .step = is_v ? flash::kernel_step::attend : flash::kernel_step::logit});
      locations_.push_back(pages_.locate(page));
    }
    const auto count = static_cast<std::uint32_t>(sequence.size());
    work_.loads.push_back({.last_page = count, .sets = count});
    const auto no_route = [](const traffic&) { return 0.0; };
    attends_.time(work_, locations_, done, static_cast<flash::no_trace*>(nullptr), no_route);
    background_.run_beside(attends_, work_, locations_, done);
  }

  flash::drive_spec drive_ = make_drive();
  flash::ftl<Policy> pages_;
  flash::attend_clock<true, flash::data_out_first> attends_;
  flash::background_writes<flash::data_out_first> background_;
  std::vector<std::vector<page_id>> live_;
  std::size_t prompt_;
  std::uint32_t turn_ = 0;
  flash::attend_work work_;
  std::vector<flash::location> locations_;
};

}  // namespace instinfer::examples
