#pragma once
// The requests of a stream before they arrive: checked, and sorted by channel.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/io_request.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

class arrivals {
 public:
  explicit arrivals(const geometry& g)
      : geometry_{g}, first_of_channel_(static_cast<std::size_t>(g.channels)) {}

  // Throws bad_argument for a request outside of the geometry, a priority that does not exist, too
  // many codewords, or an arrival that is negative or earlier than that of the request before it.
  // Keeps its memory. Views `requests` until the next call.
  void sort(std::span<const io_request> requests, std::int64_t ticks_per_ps) {
    check(requests);
    requests_ = requests;
    ticks_per_ps_ = ticks_per_ps;
    next_of_channel_.resize(requests.size());
    std::fill(first_of_channel_.begin(), first_of_channel_.end(), requests.size());
    for (std::size_t i = requests.size(); i-- > 0;) {
      std::size_t& first = first_of_channel_[static_cast<std::size_t>(requests[i].where.channel)];
      next_of_channel_[i] = first;
      first = i;
    }
  }

  void begin(std::int32_t channel) {
    coming_ = first_of_channel_[static_cast<std::size_t>(channel)];
  }
  // Arrival of the next request of the channel, in ticks; never_ticks if there is none.
  std::int64_t next() const {
    return coming_ == requests_.size() ? never_ticks
                                       : requests_[coming_].arrival_ps * ticks_per_ps_;
  }
  // Number of this request, which has arrived. Precondition: there is one.
  std::size_t take() {
    const std::size_t came = coming_;
    coming_ = next_of_channel_[came];
    return came;
  }

 private:
  void check(std::span<const io_request> requests) const {
    std::int64_t before = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const io_request& r = requests[i];
      const auto complain = [&](const std::string& what) {
        return "flash requests: request " + std::to_string(i) + " " + what;
      };
      require(inside(r.where, geometry_), [&] {
        return complain("lies outside of " + to_string(geometry_) + ": " + to_string(r.where));
      });
      require(r.priority >= 0 && r.priority < max_priorities, [&] {
        return complain("has priority " + std::to_string(r.priority) + ", which must lie in [0, " +
                        std::to_string(max_priorities) + ")");
      });
      require(r.codewords >= 0 && r.codewords <= geometry_.codewords_per_page(), [&] {
        return complain("has " + std::to_string(r.codewords) + " codewords, a page has " +
                        std::to_string(geometry_.codewords_per_page()));
      });
      require(r.arrival_ps >= before, [&] {
        return complain("arrives at " + std::to_string(r.arrival_ps) + " ps, before " +
                        (i == 0 ? "time 0" : "the one in front of it") +
                        "; sort requests by arrival");
      });
      before = r.arrival_ps;
    }
  }

  geometry geometry_;
  std::span<const io_request> requests_;
  std::int64_t ticks_per_ps_ = 1;
  std::vector<std::size_t> first_of_channel_;
  std::vector<std::size_t> next_of_channel_;  // [requests]; the number of requests: none
  std::size_t coming_ = 0;
};

}  // namespace instinfer::flash
