#pragma once
// What each rule and option of the flash model costs or gains, as the tables that docs/flash.md
// shows.

#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/mixed_timeline.hpp"
#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/ftl/ftl.hpp"
#include "instinfer/ssd/report/stream_latencies.hpp"
#include "instinfer/ssd/spec/placement.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "support/mixed_load.hpp"

namespace instinfer::examples {

class option_costs {
 public:
  static std::string tables() {
    option_costs out;
    out.bursts();
    out.sequences();
    out.streams();
    out.attends();
    out.amplification();
    return out.text_;
  }

 private:
  static constexpr int burst_pages = 10'000;

  template <class... Values>
  void line(const char* format, Values... values) {
    if constexpr (sizeof...(values) == 0) {
      text_ += format;
    } else {
      char buffer[160];
      std::snprintf(buffer, sizeof(buffer), format, values...);
      text_ += buffer;
    }
  }

  // Anywhere on the drive. mt19937_64 and % are the same everywhere, distributions are not.
  static std::vector<flash::location> random_pages(const flash::geometry& g, int count) {
    const flash::placement where{g};
    std::mt19937_64 random(1);
    std::vector<flash::location> pages;
    for (int i = 0; i < count; ++i) {
      const auto n = random() % static_cast<std::uint64_t>(g.pages_total());
      pages.push_back(where.striped(static_cast<std::int64_t>(n)));
    }
    return pages;
  }
  static std::vector<flash::location> striped_pages(const flash::geometry& g, int count) {
    const flash::placement where{g};
    std::vector<flash::location> pages;
    for (int n = 0; n < count; ++n) {
      pages.push_back(where.striped(n));
    }
    return pages;
  }

  template <class Arbitration = flash::data_out_first>
  static double makespan_us(const flash::drive_spec& drive,
                            const std::vector<flash::location>& pages,
                            const flash::drive_rules& rules = {}) {
    flash::timeline<Arbitration> timeline(drive.geometry, drive.timing, rules);
    return static_cast<double>(timeline.read(pages).makespan_ps()) * 1e-6;
  }

  void row(const char* name, double us, double than_us, int pages, std::int32_t page_bytes) {
    line("%-38s %10.1f %8.2f %+9.1f %%\n", name, us, pages * (page_bytes / (us * 1e3)),
         100 * (us / than_us - 1));
  }

  void bursts() {
    line("%d random pages\n%-38s %10s %8s %11s\n", burst_pages, "", "us", "GB/s", "change");
    const flash::drive_spec& drive = flash::instcsd;
    const auto pages = random_pages(drive.geometry, burst_pages);
    const double base = makespan_us(drive, pages);
    const auto show = [&](const char* name, double us) {
      row(name, us, base, burst_pages, drive.geometry.page_bytes);
    };
    show("data_out_first (the default)", base);
    show("command_first", makespan_us<flash::command_first>(drive, pages));
    show("data_out_first, cache read", makespan_us(drive, pages, {.cache_read = true}));
    show("command_first, cache read",
         makespan_us<flash::command_first>(drive, pages, {.cache_read = true}));
    show("data_out_first, independent planes",
         makespan_us(drive, pages, flash::independent_planes));
    flash::drive_spec free_move = drive;
    free_move.timing.cache_move_ps = 0;
    show("command_first, cache read, free move",
         makespan_us<flash::command_first>(free_move, pages, {.cache_read = true}));
    flash::geometry quarters = drive.geometry;
    quarters.codeword_bytes = 1024;
    const std::vector<std::int32_t> one(pages.size(), 1);
    flash::timeline<> parts(quarters, drive.timing);
    show("one codeword of 1 KiB of each page",
         static_cast<double>(parts.read_codewords(pages, one).makespan_ps()) * 1e-6);
    show("read retry, 0.003 a page", makespan_us(drive, pages, {.retry = flash::worst_read_retry}));
    flash::drive_spec decoding = drive;
    decoding.timing.decode_ps = 10 * flash::ps_per_us;
    show("10 us to decode", makespan_us(decoding, pages));
    flash::drive_spec typed = drive;
    typed.timing = flash::tlc_by_type_timing;
    show("TLC: tR 56.5, 77.5, 106 us", makespan_us(typed, pages));
    flash::drive_spec mean = typed;
    mean.timing.types = {};
    mean.timing.read_ps = 80 * flash::ps_per_us;
    show("TLC, all pages with the mean, 80 us", makespan_us(mean, pages));
  }

  void sequences() {
    line("\n%d pages in a row\n%-38s %10s %8s %11s\n", burst_pages, "", "us", "GB/s", "change");
    double base = 0;
    for (const auto& [dies, planes] : {std::pair{1, 1}, {2, 1}, {4, 1}, {8, 1}, {4, 2}, {4, 4}}) {
      flash::drive_spec drive = flash::instcsd;
      drive.geometry.dies = dies;
      drive.geometry.planes = planes;
      const double us = makespan_us(drive, striped_pages(drive.geometry, burst_pages));
      base = base == 0 ? us : base;
      char name[64];
      std::snprintf(name, sizeof(name), "4 chips x %d dies x %d planes", dies, planes);
      row(name, us, base, burst_pages, drive.geometry.page_bytes);
    }
  }

  // One read every 5 us all over the drive, alone and beside two programs every 100 us; latencies
  // of the reads.
  void streams() {
    line("\n2000 reads, one every 5 us             %10s %8s %11s\n", "p50 us", "p99 us", "most us");
    const flash::drive_spec& drive = flash::instcsd;
    const auto pages = random_pages(drive.geometry, 2'400);
    for (const int how : {0, 1, 2, 3}) {
      std::vector<flash::io_request> requests;
      for (int i = 0; i < 2'000; ++i) {
        const std::int64_t arrival_ps = i * 5 * flash::ps_per_us;
        if (how > 0 && i % 20 == 0) {
          for (int write = 0; write < 4; ++write) {
            requests.push_back(
                {.what = flash::array_operation::program,
                 .where = pages[static_cast<std::size_t>(2'000 + i / 20 * 4 + write)],
                 .arrival_ps = arrival_ps,
                 .priority = how == 1 ? 0 : 1});
          }
        }
        requests.push_back({.where = pages[static_cast<std::size_t>(i)], .arrival_ps = arrival_ps});
      }
      flash::mixed_timeline<> timeline(drive.geometry, drive.timing,
                                       {.suspend = {.of_programs = how == 3}});
      std::vector<std::int64_t> finish(requests.size());
      timeline.run(requests, finish);
      std::vector<std::int64_t> scratch;
      const flash::latencies of = flash::stream_latencies(requests, finish, timeline.scale(),
                                                          flash::array_operation::read, 0, scratch);
      const auto us = [&](std::int64_t ticks) {
        return static_cast<double>(ticks) /
               static_cast<double>(timeline.scale().ticks_per_ps * flash::ps_per_us);
      };
      constexpr const char* names[] = {"alone", "with 4 programs every 100 us",
                                       "those of lower priority", "and suspended for reads"};
      line("%-38s %10.1f %8.1f %11.1f\n", names[how], us(of.p50_ticks), us(of.p99_ticks),
           us(of.max_ticks));
    }
  }

  template <class Policy>
  void attends_on(const char* name, const Policy& policy, const flash::suspension& suspend = {}) {
    mixed_load<Policy> load(policy, suspend);
    auto ns = load.run();
    const flash::latencies alone = flash::latencies_of(ns.alone);
    const flash::latencies beside = flash::latencies_of(ns.beside);
    const auto ms = [](std::int64_t of_ns) { return static_cast<double>(of_ns) * 1e-6; };
    line("%-38s %10.2f %8.2f %11.2f %8.2f %8.2f\n", name, ms(alone.p50_ticks), ms(alone.p99_ticks),
         ms(beside.p50_ticks), ms(beside.p99_ticks), load.write_amplification());
  }

  // support/mixed_load.hpp says which load this is.
  void attends() {
    line("\n200 attends while the cache changes,   %10s %8s %11s %8s %8s\n", "alone", "", "beside",
         "", "program");
    line("%-38s %10s %8s %11s %8s %8s\n", "ms", "p50", "p99", "p50", "p99", "a page");
    attends_on("kv_blocks", flash::kv_blocks{.frontiers = 8});
    attends_on("greedy_pages", flash::greedy_pages{});
    attends_on("and suspended for reads", flash::greedy_pages{},
               {.of_programs = true, .of_erases = true});
  }

  template <class Policy>
  static double amplification_of(const Policy& policy) {
    const flash::geometry g{
        .channels = 2, .chips = 2, .dies = 1, .planes = 2, .blocks = 64, .pages = 32};
    flash::ftl<Policy> drive(g, 6'144, policy);  // of 8192 pages a channel
    // Sequences take turns in writing; whenever the drive is full, one that is drawn goes as a
    // whole.
    std::mt19937_64 random(1);
    std::vector<std::vector<page_id>> live(8);
    for (std::uint32_t n = 0; n < 60'000; ++n) {
      const auto of = static_cast<std::uint32_t>(random() % live.size());
      if (drive.live_pages() + 256 > drive.capacity_pages()) {
        auto& gone = live[random() % live.size()];
        for (const page_id page : gone) {
          drive.release(page);
        }
        gone.clear();
      }
      live[of].push_back(drive.write(of, n));
    }
    return drive.counters().write_amplification();
  }

  void amplification() {
    line("\nwrite amplification of 8 sequences that grow and go as a whole\n");
    line("%-38s %10.2f\n", "kv_blocks: blocks of one sequence",
         amplification_of(flash::kv_blocks{.frontiers = 8}));
    line("%-38s %10.2f\n", "greedy_pages: pages as they come",
         amplification_of(flash::greedy_pages{}));
  }

  std::string text_;
};

}  // namespace instinfer::examples
