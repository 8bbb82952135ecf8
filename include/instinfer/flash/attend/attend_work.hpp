#pragma once
// What an attend asks of the drive, head by head and page by page, in the order of the plans: flat
// arrays that a replay reads once.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/attention/observer.hpp"
#include "instinfer/core/access_plan.hpp"
#include "instinfer/core/index_set.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/core/traffic.hpp"
#include "instinfer/layout/concepts.hpp"
#include "instinfer/ssd/spec/codewords.hpp"
#include "instinfer/ssd/spec/geometry.hpp"

namespace instinfer::flash {

// Which of the attention kernels' steps (InstInfer Fig. 8) a page is for.
enum class kernel_step : std::uint8_t {
  logit_0,  // scores before the fold: SparF's first pass
  logit,    // K of folded tokens
  attend    // V
};

struct page_task {
  page_id page = no_page;      // no_page: in the group buffer
  std::uint32_t elements = 0;  // wanted ones
  std::uint32_t set = 0;
  std::int32_t codewords = 0;  // that cross the bus; 0: all (codewords.hpp)
  // Elements of V in a page of K, and whether they are elements of K at the same time.
  std::uint32_t values = 0;
  bool values_are_keys = false;

  // Elements that the kernels multiply in the step of the page's set. Those of `values` come then.
  constexpr std::uint32_t in_step() const { return elements - (values_are_keys ? 0 : values); }
};

// Data bytes of the page that cross the bus; none of a buffered one.
constexpr std::uint64_t bus_bytes(const page_task& task, const geometry& g) {
  return task.page == no_page
             ? 0
             : static_cast<std::uint64_t>(task.codewords == 0 ? g.page_bytes
                                                              : task.codewords * g.codeword_bytes);
}

// Corrects the traffic of whole pages if only parts of them cross the buses. On host routes the
// same parts move on.
constexpr void count_parts(traffic& moved, std::span<const page_task> tasks, const geometry& g,
                           bool in_drive) {
  const std::uint64_t whole = std::exchange(moved.channel_bytes, 0);
  for (const page_task& task : tasks) {
    moved.channel_bytes += bus_bytes(task, g);
  }
  if (!in_drive) {  // no filter in front of a host
    moved.filtered_bytes = moved.channel_bytes;
    moved.link_bytes -= whole - moved.channel_bytes;
  }
}

// The pages whose results are one softmax input for each token and query head: a tile of K, which
// may lie in several pages of dims. The V pages of a load are a set without scores.
struct score_set {
  std::uint32_t pages = 0;
  std::uint32_t scores = 0;
  std::uint32_t load = 0;
  kernel_step step = kernel_step::logit_0;
};

// One reading operation of one head.
struct head_load {
  attention::operation op = attention::operation::fold;
  std::uint32_t phase = 0;       // its number in the head's program; 0: the head's first
  std::uint32_t first_page = 0;  // its pages are [first_page, last_page) of the work
  std::uint32_t last_page = 0;
  std::uint32_t sets = 0;
  std::uint64_t ranked_elements = 0;  // that arg-top-k sees before it
};

// Loads of a head follow each other.
struct attend_work {
  std::vector<page_task> pages;
  std::vector<score_set> sets;
  std::vector<head_load> loads;

  void clear() {
    pages.clear();
    sets.clear();
    loads.clear();
  }
  bool has_next(std::uint32_t load) const {
    return load + 1 < loads.size() && loads[load + 1].phase > 0;
  }
};

// The bytes from the first to the last wanted entry of a page, and the number of their codewords.
// Only for formats without a codec, because a codec keeps its scales elsewhere in the page. The
// default takes whole pages.
struct wanted_codewords {
  layout::tiling tiles;
  geometry shape;
  std::uint32_t element_bytes = 0;  // 0: whole pages

  index_run bytes(const page_read& read, const access_plan& plan) const {
    if (element_bytes == 0) {
      return {};
    }
    const layout::tile& tile = tiles.of(read.kind);
    const auto tokens = plan.tokens(read).runs();
    const auto dims = plan.dims(read).runs();
    const std::uint32_t first = tile.offset(tokens.front().first, dims.front().first);
    const std::uint32_t last = tile.offset(tokens.back().last - 1, dims.back().last - 1);
    return {first * element_bytes, (last + 1) * element_bytes};
  }
  std::int32_t count(index_run bytes) const {
    return bytes.size() == 0 ? 0 : codewords_of(bytes.first, bytes.last, shape);
  }
};

// Observes an attend call, head after head (so not with a parallel policy), and appends to the
// work.
class attend_recorder {
 public:
  attend_recorder(attend_work& work, std::uint32_t group, std::uint32_t k_dim,
                  const wanted_codewords& codewords)
      : work_{work}, group_{group}, k_dim_{k_dim}, codewords_{codewords} {}

  class head_recorder {
   public:
    explicit head_recorder(const attend_recorder& all)
        : work_{all.work_}, group_{all.group_}, k_dim_{all.k_dim_}, codewords_{all.codewords_} {}

    // Top-k ranks all dims, all visible tokens, or the chunks that were scored. Choices by position
    // rank nothing.
    void chose(attention::operation op, index_view chosen) {
      switch (op) {
        case attention::operation::all_tokens:
          visible_ = chosen.count();
          break;
        case attention::operation::top_dims:
          ranked_ += k_dim_;
          break;
        case attention::operation::top_tokens:
          ranked_ += visible_;
          break;
        case attention::operation::top_chunks:
          ranked_ += units_;
          break;
        case attention::operation::score_dims:  // these read, or choose without ranks
        case attention::operation::fold:
        case attention::operation::choose_tokens:
        case attention::operation::score_chunks:
        case attention::operation::score_tokens:
        case attention::operation::fold_scored:
          break;
      }
    }
    // Rows of summaries lie in fast memory; the time to score them is not counted.
    void scored(attention::operation, std::uint32_t rows, std::size_t, std::uint32_t) {
      units_ = rows;
    }

    void accessed(attention::operation op,
                  const auto& plan) {  // an access_plan; compiled where it is used
      const auto load = static_cast<std::uint32_t>(work_.loads.size());
      const auto sets_before = static_cast<std::uint32_t>(work_.sets.size());
      const auto first_page = static_cast<std::uint32_t>(work_.pages.size());
      std::uint32_t k_set = none;
      std::uint32_t v_set = none;
      std::uint32_t k_tile = 0;
      index_run bytes;
      for (const page_read& read : plan.reads()) {
        if (read.from != residence::flash) {
          continue;  // attended where the copy is, not in the drive
        }
        if (read.shares != sharing::nothing) {  // of the page before, which holds K
          add_values(work_.pages.back(), read, plan, bytes);
          continue;
        }
        const bool is_v = read.kind == stream::v_by_token;
        std::uint32_t& set = is_v ? v_set : k_set;
        if (set == none || (!is_v && read.token_tile != k_tile)) {
          set = static_cast<std::uint32_t>(work_.sets.size());
          const bool first_look = op == attention::operation::score_dims;
          work_.sets.push_back({.scores = is_v ? 0 : read.tokens.count * group_,
                                .load = load,
                                .step = first_look ? kernel_step::logit_0
                                        : is_v     ? kernel_step::attend
                                                   : kernel_step::logit});
          k_tile = is_v ? k_tile : read.token_tile;
        }
        ++work_.sets[set].pages;
        bytes = read.buffered ? index_run{} : codewords_.bytes(read, plan);
        work_.pages.push_back({.page = read.buffered ? no_page : read.page,
                               .elements = static_cast<std::uint32_t>(read.wanted_elements()),
                               .set = set,
                               .codewords = codewords_.count(bytes)});
      }
      if (work_.pages.size() == first_page && !plan.reads().empty()) {
        return;  // nothing for the drive to do
      }
      work_.loads.push_back({.op = op,
                             .phase = phase_++,
                             .first_page = first_page,
                             .last_page = static_cast<std::uint32_t>(work_.pages.size()),
                             .sets = static_cast<std::uint32_t>(work_.sets.size()) - sets_before,
                             .ranked_elements = std::exchange(ranked_, 0)});
    }

   private:
    // Adds the entries of V to the page of K that holds them. `bytes`: of the page, that K wants.
    void add_values(page_task& task, const page_read& read, const auto& plan, index_run bytes) {
      task.values = static_cast<std::uint32_t>(read.wanted_elements());
      task.values_are_keys = read.shares == sharing::entries;
      task.elements += static_cast<std::uint32_t>(read.new_elements());
      if (!read.buffered) {
        const index_run more = codewords_.bytes(read, plan);
        task.codewords =
            codewords_.count({std::min(bytes.first, more.first), std::max(bytes.last, more.last)});
      }
    }

    static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();
    attend_work& work_;
    std::uint32_t group_;
    std::uint32_t k_dim_;
    const wanted_codewords& codewords_;
    std::uint32_t phase_ = 0;
    std::uint32_t visible_ = 0;
    std::uint32_t units_ = 0;
    std::uint64_t ranked_ = 0;
  };

  head_recorder head(std::uint32_t /*kv_head*/) const { return head_recorder{*this}; }

 private:
  attend_work& work_;
  std::uint32_t group_;
  std::uint32_t k_dim_;
  const wanted_codewords& codewords_;
};

}  // namespace instinfer::flash
