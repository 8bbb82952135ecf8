#pragma once
// Checks page tables on the device before attention reads them, and reports the first wrong entry.
// For callers who do not trust their tables.

#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/cuda/launch/attend_arguments.hpp"

namespace instinfer::cuda {

// The first error of each kind, as (sequence * kv_heads + head) << 32 | index; `none` where there
// is none.
struct table_report {
  static constexpr std::uint64_t none = ~std::uint64_t{0};
  // Index: the page of the sequence whose entry is not below page_count.
  std::uint64_t k_entry = none;
  std::uint64_t v_entry = none;
  // Index: the sequence's tokens, which are more than a table row holds, or before `first`.
  std::uint64_t length = none;
  // Index: the place in the list whose token is not live, or not above the one before.
  std::uint64_t listed = none;
};

// Each CTA takes one item after the other: one KV head of one sequence.
template <class Lane, class E, class Out, class Code = E>
class table_check {
 public:
  constexpr table_check(Lane& lane, const attend_arguments<E, Out, Code>& a, table_report* report)
      : lane_{lane}, a_{a}, report_{report} {}

  constexpr void run() {
    const std::uint64_t items = std::uint64_t{a_.sizes.sequences} * a_.sizes.kv_heads;
    for (std::uint64_t item = lane_.block(); item < items; item += lane_.blocks()) {
      const auto sequence = static_cast<std::uint32_t>(item / a_.sizes.kv_heads);
      const auto head = static_cast<std::uint32_t>(item % a_.sizes.kv_heads);
      const std::uint32_t first = a_.first == nullptr ? 0 : a_.first[sequence];
      const std::uint32_t last = a_.tokens[sequence];
      if (first > last || last > a_.k.most_tokens() || last > a_.v.most_tokens() ||
          seen_too_many(sequence, first, last)) {
        lane_.minimum(&report_->length, item << 32 | last);
        continue;
      }
      check_stream(a_.k, sequence, head, first, last, item, &report_->k_entry);
      check_stream(a_.v, sequence, head, first, last, item, &report_->v_entry);
      check_list(sequence, first, last, item);
    }
  }

 private:
  constexpr bool seen_too_many(std::uint32_t sequence, std::uint32_t first,
                               std::uint32_t last) const {
    const std::uint32_t positions = a_.listed == nullptr
                                        ? visible_of(first, last, a_.window, a_.sinks).count
                                        : a_.listed_counts[sequence];
    return positions > a_.sizes.most_positions;
  }
  constexpr void check_stream(const paged_stream<Code>& s, std::uint32_t sequence,
                              std::uint32_t head, std::uint32_t first, std::uint32_t last,
                              std::uint64_t item, std::uint64_t* found) {
    if (s.table == nullptr || first == last) {
      return;
    }
    const std::uint32_t* entries = s.entries(sequence, head);
    const std::uint32_t last_page = s.page_tokens(last - 1);
    for (std::uint32_t p = s.page_tokens(first) + lane_.thread(); p <= last_page;
         p += lane_.threads()) {
      if (entries[std::uint64_t{p} * s.table_page_stride] >= s.page_count) {
        lane_.minimum(found, item << 32 | p);
      }
    }
  }
  constexpr void check_list(std::uint32_t sequence, std::uint32_t first, std::uint32_t last,
                            std::uint64_t item) {
    if (a_.listed == nullptr) {
      return;
    }
    const std::uint32_t* list = a_.listed + static_cast<std::int64_t>(item) * a_.list_stride;
    for (std::uint32_t i = lane_.thread(); i < a_.listed_counts[sequence]; i += lane_.threads()) {
      if (list[i] < first || list[i] >= last || (i > 0 && list[i] <= list[i - 1])) {
        lane_.minimum(&report_->listed, item << 32 | i);
      }
    }
  }

  Lane& lane_;
  const attend_arguments<E, Out, Code>& a_;
  table_report* report_;
};

// Throws bad_argument for the first error in the report.
inline void throw_if_bad(const table_report& r, std::uint32_t kv_heads) {
  const auto fail = [&](std::uint64_t found, const char* what, const char* index) {
    require(found == table_report::none, [&] {
      const std::uint64_t item = found >> 32;
      return std::string("attend: ") + what + " at [sequence " + std::to_string(item / kv_heads) +
             ", head " + std::to_string(item % kv_heads) + ", " + index + " " +
             std::to_string(found & 0xFFFF'FFFFu) + "]";
    });
  };
  fail(r.length, "tokens is beyond the page table or most_positions, or before first,", "tokens");
  fail(r.k_entry, "k.table has an entry that is not below k.page_count", "page");
  fail(r.v_entry, "v.table has an entry that is not below v.page_count", "page");
  fail(r.listed, "listed has a token that is not live, or not above the one before it,", "index");
}

}  // namespace instinfer::cuda
