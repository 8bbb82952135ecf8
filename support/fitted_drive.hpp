#pragma once
// Fits the flash model to a real drive: from its read rates by size and depth to a drive_spec.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::examples {

// The rate of random reads of so many bytes, with `depth` of them under way at any time.
struct read_sample {
  double request_bytes = 0;
  double depth = 1;
  double bytes_per_s = 0;
};

// What a drive is to its host: `servers` requests are served at a time, each takes request_s and
// its bytes at server_bytes_per_s, and all together pass a link. The drive does not say what is
// behind it, be it flash or the disk of a virtual machine.
struct drive_rates {
  double servers = 1;
  double request_s = 0;
  double server_bytes_per_s = 0;
  double link_bytes_per_s = 0;

  // A request goes to any server. With d requests under way, the mean number of busy servers of n
  // is n d / (n + d - 1): a closed queueing network of n equal stations (Gordon and Newell, 1967).
  double predict(double request_bytes, double depth) const {
    const double busy = servers * depth / (servers + depth - 1);
    return std::min(link_bytes_per_s,
                    busy * request_bytes / (request_s + request_bytes / server_bytes_per_s));
  }
};

// Mean of |ln(predicted / measured)|. The logarithm weighs small and large requests alike, and the
// absolute value keeps a few disturbed samples from moving the fit.
inline double misfit(const drive_rates& drive, std::span<const read_sample> samples) {
  double sum = 0;
  for (const read_sample& s : samples) {
    sum += std::abs(std::log(drive.predict(s.request_bytes, s.depth) / s.bytes_per_s));
  }
  return sum / static_cast<double>(samples.size());
}

// The rates of least misfit, by pattern search for each number of servers up to most_servers.
// Throws bad_argument without samples, or for a sample that is not positive.
inline drive_rates fit(std::span<const read_sample> samples, int most_servers = 64) {
  require(!samples.empty(), [] { return std::string("fit: there are no samples of the drive"); });
  double most = 0;
  double least_s = 1e9;  // of one request
  for (const read_sample& s : samples) {
    require(s.request_bytes > 0 && s.depth >= 1 && s.bytes_per_s > 0, [&] {
      return "fit: a sample needs bytes, a depth of 1 or more and a rate, got " +
             std::to_string(s.request_bytes) + ", " + std::to_string(s.depth) + " and " +
             std::to_string(s.bytes_per_s);
    });
    most = std::max(most, s.bytes_per_s);
    least_s = std::min(least_s, s.depth * s.request_bytes / s.bytes_per_s);
  }
  drive_rates best;
  double least = 1e9;
  for (int servers = 1; servers <= most_servers; ++servers) {
    drive_rates at{static_cast<double>(servers), least_s, most, most};
    double error = misfit(at, samples);
    for (double factor = 2; factor > 1.001;) {
      bool better = false;
      for (double drive_rates::* rate : {&drive_rates::request_s, &drive_rates::server_bytes_per_s,
                                         &drive_rates::link_bytes_per_s}) {
        for (const double by : {factor, 1 / factor}) {
          drive_rates next = at;
          next.*rate *= by;
          // A server that is 100 times as fast as all together is only its request_s.
          if (const double e = misfit(next, samples);
              e < error && next.server_bytes_per_s <= 100 * most) {
            at = next;
            error = e;
            better = true;
          }
        }
      }
      factor = better ? factor : std::sqrt(factor);
    }
    if (error < least) {
      least = error;
      best = at;
    }
  }
  return best;
}

// The same drive as flash. A server is a channel with one die. A command takes request_s, the array
// time, and its pages cross the bus. Neighbours in a file are one request; here they are the planes
// of the die, which read one row by one command. Up to 8 pages, so that scattered pages seldom
// share a row, and up to `most_request_bytes`. The size is at least `bytes`. Programs take what
// makes whole rows as slow as writes of write_bytes_per_s; erases are part of that rate. Rates are
// rounded to three digits, and to 1 MB/s, so that ticks of the timeline fit 63 bits.
inline flash::drive_spec spec_of(const drive_rates& drive, std::int32_t page_bytes,
                                 std::uint64_t bytes, double write_bytes_per_s,
                                 std::int64_t most_request_bytes = 512 << 10) {
  const auto rounded = [](double rate) {
    std::int64_t unit = 1'000'000;
    for (; rate / static_cast<double>(unit) >= 999.5; unit *= 10) {
    }
    return std::max<std::int64_t>(std::llround(rate / static_cast<double>(unit)), 1) * unit;
  };
  flash::drive_spec spec;
  flash::geometry& g = spec.geometry;
  g.channels = static_cast<std::int32_t>(drive.servers);
  g.planes =
      static_cast<std::int32_t>(std::clamp<std::int64_t>(most_request_bytes / page_bytes, 1, 8));
  g.pages = 256;
  g.page_bytes = page_bytes;
  g.codeword_bytes = page_bytes;
  const double block_bytes = double{256} * page_bytes * g.planes * g.channels;
  // A multiple of 16, so that larger pages divide it.
  g.blocks = static_cast<std::int32_t>(
                 std::clamp(static_cast<double>(bytes) / block_bytes / 16, 0.0, 1e6)) *
                 16 +
             16;
  flash::timing& t = spec.timing;
  t.bus_bytes_per_s = rounded(drive.server_bytes_per_s);
  t.read_ps = std::max<std::int64_t>(std::llround(drive.request_s * 1e12), 1);
  t.read_command_ps = t.read_address_ps = t.read_next_plane_ps = t.read_turnaround_ps = 0;
  t.program_command_ps = t.program_next_plane_ps = 0;
  const double row_bytes = static_cast<double>(page_bytes) * g.planes;
  const double row_s = row_bytes * g.channels / write_bytes_per_s -
                       row_bytes / static_cast<double>(t.bus_bytes_per_s);
  t.program_ps = std::max<std::int64_t>(std::llround(row_s * 1e12), 1);
  t.erase_ps = 1;
  spec.link_bytes_per_s = rounded(drive.link_bytes_per_s);
  flash::validate(spec);
  return spec;
}

}  // namespace instinfer::examples
