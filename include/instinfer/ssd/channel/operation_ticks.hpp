#pragma once
// How long the operations of a drive take, in exact ticks.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"
#include "instinfer/ssd/spec/read_retry.hpp"
#include "instinfer/ssd/spec/suspension.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

class operation_ticks {
 public:
  // Throws bad_argument for an invalid geometry, timing, retry or suspension, error if a duration
  // does not fit 63 bits of ticks.
  operation_ticks(const geometry& g, const timing& t, const drive_rules& rules)
      : geometry_{(validate(g), g)},
        scale_{(validate(t), ticks_of(t, g))},
        types_{t.types},
        retry_{(validate(rules), rules.retry)},
        suspend_{rules.suspend, scale_},
        erase_array_{scale_.from_ps(t.erase_ps)},
        cache_move_{scale_.from_ps(t.cache_move_ps)},
        decode_{scale_.from_ps(t.decode_ps)} {
    const std::int32_t most_reads = retry_.present() ? 1 + max_read_retries : 1;
    for (const page_type type : {page_type::lower, page_type::middle, page_type::upper}) {
      read_array_[static_cast<std::size_t>(type)] = scale_.from_ps(t.read_array_ps(type));
      program_array_[static_cast<std::size_t>(type)] = scale_.from_ps(t.program_array_ps(type));
      longest_read_ =
          std::max(longest_read_, scale_.from_ps(most_reads * t.read_array_ps(type)) + cache_move_);
    }
    for (std::int32_t p = 1; p <= g.planes; ++p) {
      cycles_[0].push_back(scale_.from_ps(t.read_cycles_ps(p)));
      cycles_[1].push_back(scale_.from_ps(t.program_cycles_ps(p)));
      cycles_[2].push_back(scale_.from_ps(t.erase_cycles_ps(p)));
    }
  }

  const geometry& shape() const { return geometry_; }
  const tick_scale& scale() const { return scale_; }
  std::int64_t transfer() const { return scale_.page_transfer_ticks; }  // one page over the bus
  // `codewords` codewords of a page, with their share of the spare bytes; 0: all.
  std::int64_t transfer(std::int32_t codewords) const {
    return codewords == 0 ? transfer() : codewords * (transfer() / geometry_.codewords_per_page());
  }
  std::int64_t cache_move() const { return cache_move_; }
  std::int64_t decode() const { return decode_; }
  const suspension_ticks& suspend() const { return suspend_; }

  // Command cycles of one command of `pages` planes.
  std::int64_t cycles(array_operation what, std::int32_t pages) const {
    return cycles_[static_cast<std::size_t>(what)][static_cast<std::size_t>(pages - 1)];
  }

  // Array time of a program or erase, or of the first read of a lower page.
  std::int64_t array(array_operation what) const {
    return what == array_operation::read      ? read_array_[0]
           : what == array_operation::program ? program_array_[0]
                                              : erase_array_;
  }
  // Array time of the operation of one page or block, by its type and with its retries.
  std::int64_t array(array_operation what, const location& at) const {
    return what == array_operation::read ? read_array(at)
           : what == array_operation::program
               ? program_array_[static_cast<std::size_t>(types_.of(at.page))]
               : erase_array_;
  }

  // Whether every read takes array(array_operation::read).
  bool reads_alike() const { return types_.count == 1 && !retry_.present(); }

  // At least the time of one command of one page or of all planes, alone on the drive: a batch
  // takes no longer than the sum over its pages.
  double longest(array_operation what) const {
    const std::int64_t busy = what == array_operation::read ? longest_read_
                              : what == array_operation::program
                                  ? *std::max_element(program_array_.begin(), program_array_.end())
                                  : erase_array_;
    return static_cast<double>(cycles(what, geometry_.planes)) + static_cast<double>(busy) +
           static_cast<double>(transfer()) * geometry_.planes + static_cast<double>(decode_);
  }

 private:
  std::int64_t read_array(const location& at) const {
    const std::int64_t once = read_array_[static_cast<std::size_t>(types_.of(at.page))];
    return retry_.present() ? once * (1 + retry_.draw(at)) : once;
  }

  geometry geometry_;
  tick_scale scale_;
  page_types types_;
  read_retry retry_;
  suspension_ticks suspend_;
  std::array<std::vector<std::int64_t>, 3> cycles_;        // [operation][planes - 1]
  std::array<std::int64_t, max_page_types> read_array_{};  // [page_type]
  std::int64_t longest_read_ = 0;  // with all retries and the move to the cache register
  std::array<std::int64_t, max_page_types> program_array_{};  // [page_type]
  std::int64_t erase_array_;
  std::int64_t cache_move_;
  std::int64_t decode_;
};

}  // namespace instinfer::flash
