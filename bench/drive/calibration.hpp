#pragma once
// Calibrates the flash model on a device: measures it, fits a drive, and writes the drive's file.

#include <sys/statvfs.h>

#include <cstring>
#include <string>
#include <vector>

#include <instinfer/drive.hpp>

#include "drive/device_rates.hpp"
#include "drive/fio.hpp"
#include "support/drive_file.hpp"
#include "support/fitted_drive.hpp"
#include "support/program.hpp"

namespace instinfer::bench {

// Writes every page of an empty store once: what was never written is read at no cost.
inline std::vector<page_id> written_pages(store::drive_files& store) {
  std::vector<page_id> pages;
  for (std::uint32_t i = 0; store.free_pages() > 0; ++i) {
    pages.push_back(store.allocate(i));
    const std::span<std::byte> to = store.write(pages.back());
    std::memset(to.data(), static_cast<int>(i), to.size());
  }
  store.flush();
  return pages;
}
inline void write_all(store::drive_files& store) {
  for (const page_id page : written_pages(store)) {
    store.release(page);
  }
}

struct calibration {
  std::string device;
  std::string mode;
  std::uint64_t device_bytes = 0;
  std::vector<examples::read_sample> random;      // [sizes, depths]
  std::vector<examples::read_sample> sequential;  // [sizes]; not fitted
  double write_bytes_per_s = 0;                   // in order, of 512 KiB
  double reads_beside_writes = 0;                 // bytes a second, of which an eighth are writes
  examples::drive_rates rates;

  flash::drive_spec spec(std::uint32_t page_bytes) const {
    return examples::spec_of(rates, static_cast<std::int32_t>(page_bytes), device_bytes,
                             write_bytes_per_s);
  }
};

// Takes about 10 s. The samples go round in several rounds, so that a disturbance of a second
// spoils few of them, and the median round counts.
inline calibration calibrate(const std::vector<std::string>& folders) {
  constexpr int rounds = 5;
  constexpr double seconds = 0.06;
  const auto files = static_cast<std::uint32_t>(folders.size());
  const std::uint64_t file_bytes = ((std::uint64_t{512} << 20) / files) & ~std::uint64_t{0xFFFFF};
  store::drive_files store({.folders = folders, .readers = 1}, files, file_bytes / 4096, 4096);
  write_all(store);
  device_load device(open_page_files(), file_bytes, store.mode());

  std::vector<device_load::load> loads;
  for (const std::size_t bytes : {4096u, 16384u, 65536u, 262144u}) {
    for (const std::size_t depth : {1u, 4u, 16u, 64u, 256u}) {
      if (depth * bytes <= (std::size_t{16} << 20)) {
        loads.push_back({.bytes = bytes, .depth = depth});
      }
    }
  }
  const std::size_t random = loads.size();
  for (const std::size_t bytes : {4096u, 65536u, 524288u}) {
    loads.push_back({.bytes = bytes, .depth = 16, .random = false});
  }
  loads.push_back({.bytes = 524288, .depth = 8, .random = false, .writes_in_8 = 8});
  loads.push_back({.bytes = 65536, .depth = 32, .writes_in_8 = 1});
  std::vector<std::vector<double>> measured(loads.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < loads.size(); ++i) {
      measured[i].push_back(device.rate(loads[i], seconds));
    }
  }
  calibration result;
  const auto median = [&](std::size_t i) {
    std::ranges::nth_element(measured[i], measured[i].begin() + rounds / 2);
    return measured[i][rounds / 2];
  };
  for (std::size_t i = 0; i + 2 < loads.size(); ++i) {
    (i < random ? result.random : result.sequential)
        .push_back(
            {static_cast<double>(loads[i].bytes), static_cast<double>(loads[i].depth), median(i)});
  }
  result.write_bytes_per_s = median(loads.size() - 2);
  result.reads_beside_writes = median(loads.size() - 1);
  result.rates = examples::fit(result.random);
  for (const std::string& folder : folders) {
    struct statvfs space = {};
    if (::statvfs(folder.c_str(), &space) == 0) {
      result.device_bytes += std::uint64_t{space.f_frsize} * space.f_blocks;
    }
    result.device += (result.device.empty() ? "" : ", ") + kind_of_device(folder);
  }
  result.mode = to_string(store.mode());
  return result;
}

inline void print(const calibration& c) {
  std::printf("device: %s; %s\n", c.device.c_str(), c.mode.c_str());
  std::printf("%-12s%10s%8s%14s%14s%9s\n", "reads", "bytes", "depth", "device MB/s", "fitted MB/s",
              "error");
  const auto row = [&](const char* what, const examples::read_sample& s) {
    const double fitted = c.rates.predict(s.request_bytes, s.depth);
    std::printf("%-12s%10.0f%8.0f%14.1f%14.1f%8.1f%%\n", what, s.request_bytes, s.depth,
                s.bytes_per_s / 1e6, fitted / 1e6, 100 * (fitted / s.bytes_per_s - 1));
  };
  for (const examples::read_sample& s : c.random) {
    row("random", s);
  }
  for (const examples::read_sample& s : c.sequential) {
    row("sequential", s);
  }
  std::printf("writes in order %.0f MB/s; 64 KiB random, one write beside seven reads, %.0f MB/s\n",
              c.write_bytes_per_s / 1e6, c.reads_beside_writes / 1e6);
  std::printf(
      "fitted: %.0f servers, %.1f us a request, %.0f MB/s each, %.0f MB/s in all; mean "
      "error %.1f %%\n\n",
      c.rates.servers, c.rates.request_s * 1e6, c.rates.server_bytes_per_s / 1e6,
      c.rates.link_bytes_per_s / 1e6, 100 * examples::misfit(c.rates, c.random));
}

// The drive file of pages of 4 KiB, with the samples it comes from.
inline void write_spec(const calibration& c, const std::string& name) {
  nlohmann::ordered_json file = examples::json_of({.spec = c.spec(4096)});
  file["device"] = c.device;
  file["mode"] = c.mode;
  file["samples"] = nlohmann::ordered_json::array();
  for (const examples::read_sample& s : c.random) {
    file["samples"].push_back(
        {{"request_bytes", s.request_bytes}, {"depth", s.depth}, {"bytes_per_s", s.bytes_per_s}});
  }
  program::write_file(name, file.dump(2) + '\n');
}

}  // namespace instinfer::bench
