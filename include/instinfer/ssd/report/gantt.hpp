#pragma once
// A Gantt chart of a trace for documents, in SVG that is readable in black and white: one row per
// bus, plane and unit.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/report/chrome_trace.hpp"
#include "instinfer/ssd/report/svg.hpp"

namespace instinfer::flash {

struct gantt_options {
  std::string title;
  std::vector<std::string> groups;  // the groups to show; empty: all groups of the trace
  double begin_ps = 0;              // start of the time window
  double end_ps = 0;                // end of the time window; 0: the end of the last bar shown
  double width_px = 960;            // of the whole picture
};

namespace detail {

// The look of the bars of one name. Known names are the events of a timeline (events.hpp); bars
// with other names contain their name as text.
struct bar_look {
  std::string_view name;
  std::string_view fill;
};
inline constexpr bar_look gantt_looks[] = {
    {"command", "#111"},          {"array read", "#fff"},     {"data out", "url(#slanted)"},
    {"data in", "url(#slanted)"}, {"program", "url(#lying)"}, {"erase", "url(#crossed)"},
    {"suspend", "#777"},          {"resume", "#777"},
};

class gantt_chart {
 public:
  gantt_chart(const chrome_trace& trace, const gantt_options& options)
      : trace_{trace}, options_{options} {
    require(options.width_px >= 300, [] {
      return std::string("gantt: a picture below 300 px has no room for bars beside its labels");
    });
    choose_rows();
    choose_window();
    place_rows();
  }

  std::string svg() {
    drawing figure(options_.width_px, bottom() + 62);
    figure.hatching("slanted", 6, "M-1 1 l2 -2 M0 6 l6 -6 M5 7 l2 -2");
    figure.hatching("lying", 4, "M0 2 h4");
    figure.hatching("crossed", 6, "M0 0 l6 6 M0 6 l6 -6");
    if (!options_.title.empty()) {
      figure.text(12, 22, options_.title, "start", 15, "font-weight=\"bold\"");
    }
    draw_axis(figure);
    for (const shown_row& row : rows_) {
      if (row.heading_y > 0) {
        figure.text(12, row.heading_y, trace_.rows()[row.track].group, "start", 13,
                    "font-weight=\"bold\"");
      }
      figure.text(left() - 8, row.y + row_px - 5, trace_.rows()[row.track].row, "end", 12);
      draw_bars(figure, row);
      figure.line(left(), row.y + row_px, right(), row.y + row_px, "stroke:#888;stroke-width:0.5");
    }
    draw_legend(figure);
    return figure.svg();
  }

 private:
  static constexpr double row_px = 18;
  static constexpr double row_gap_px = 5;
  static constexpr double letter_px = 6.8;  // mean advance of a 12 px sans-serif letter

  struct shown_row {
    std::size_t track;
    double heading_y = 0;  // baseline of the group's name above the row; 0: none
    double y = 0;
    std::vector<const chrome_trace::bar*> bars;
  };

  void choose_rows() {
    const auto shown = [&](const std::string& group) {
      return options_.groups.empty() || std::ranges::count(options_.groups, group) > 0;
    };
    for (const std::string& group : options_.groups) {
      require(std::ranges::count(trace_.rows(), group, &chrome_trace::track::group) > 0,
              [&] { return std::string("gantt: the trace has no group \"") + group + "\""; });
    }
    std::vector<std::size_t> row_of(trace_.rows().size(), trace_.rows().size());
    for (std::size_t track = 0; track < trace_.rows().size(); ++track) {
      if (shown(trace_.rows()[track].group)) {
        rows_.push_back({.track = track, .bars = {}});
      }
    }
    // Groups are in order of first use; within a channel, the bus comes first, then planes by
    // number.
    std::ranges::stable_sort(rows_, {}, [&](const shown_row& row) {
      const chrome_trace::track& track = trace_.rows()[row.track];
      return std::pair{track.group_number, numbers_in(track.row)};
    });
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      row_of[rows_[i].track] = i;
    }
    for (const chrome_trace::bar& bar : trace_.bars()) {
      if (row_of[bar.row] < rows_.size()) {
        rows_[row_of[bar.row]].bars.push_back(&bar);
      }
    }
    for (shown_row& row : rows_) {
      std::ranges::stable_sort(row.bars, {}, &chrome_trace::bar::begin_ps);
    }
  }

  static std::vector<int> numbers_in(const std::string& text) {
    std::vector<int> numbers;
    bool inside = false;
    for (const char c : text) {
      if (const bool digit = c >= '0' && c <= '9'; std::exchange(inside, digit) && digit) {
        numbers.back() = (10 * numbers.back() + (c - '0')) % 1'000'000;
      } else if (digit) {
        numbers.push_back(c - '0');
      }
    }
    return numbers;
  }

  void choose_window() {
    end_ps_ = options_.end_ps;
    for (const shown_row& row : rows_) {
      for (const chrome_trace::bar* bar : row.bars) {
        end_ps_ = options_.end_ps > 0 ? end_ps_ : std::max(end_ps_, bar->end_ps());
      }
    }
    require(!rows_.empty() && options_.begin_ps >= 0 && options_.begin_ps < end_ps_, [&] {
      return std::string("gantt: nothing to show between ") + std::to_string(options_.begin_ps) +
             " and " + std::to_string(end_ps_) + " ps";
    });
  }

  void place_rows() {
    std::size_t longest = 4;
    double y = options_.title.empty() ? 10 : 36;
    std::string_view group;
    for (shown_row& row : rows_) {
      const chrome_trace::track& track = trace_.rows()[row.track];
      longest = std::max({longest, track.row.size(), track.group.size()});
      if (row.track == rows_.front().track || track.group != group) {
        row.heading_y = y + 13;
        y += 19;
        group = track.group;
      }
      row.y = y;
      y += row_px + row_gap_px;
    }
    left_ = 20 + letter_px * static_cast<double>(longest);
    bottom_ = y;
  }

  double left() const { return left_; }
  double right() const { return options_.width_px - 20; }
  double bottom() const { return bottom_; }
  double x_of(double ps) const {
    const double share = (ps - options_.begin_ps) / (end_ps_ - options_.begin_ps);
    return left() + std::clamp(share, 0.0, 1.0) * (right() - left());
  }

  void draw_axis(drawing& figure) const {
    const double span_us = (end_ps_ - options_.begin_ps) * 1e-6;
    double step = std::pow(10.0, std::floor(std::log10(span_us)));
    while (span_us / step < 5) {
      step /= span_us / step < 2 ? 5 : 2;
    }
    const double top = rows_.front().y;
    for (double i = std::ceil(options_.begin_ps * 1e-6 / step); i * step * 1e6 <= end_ps_; ++i) {
      const double x = x_of(i * step * 1e6);
      figure.line(x, top, x, bottom(), "stroke:#ccc;stroke-width:1");
      figure.text(x, bottom() + 14, number(i * step), "middle", 12);
    }
    figure.text((left() + right()) / 2, bottom() + 32, "time (\u00b5s)", "middle", 12);
  }

  void draw_bars(drawing& figure, const shown_row& row) const {
    constexpr double thin_px = 2;
    constexpr double gap_px = 0.25;
    for (std::size_t i = 0; i < row.bars.size();) {
      const chrome_trace::bar& bar = *row.bars[i++];
      if (bar.end_ps() < options_.begin_ps || bar.begin_ps > end_ps_) {
        continue;
      }
      const double begin = x_of(bar.begin_ps);
      double end = x_of(bar.end_ps());
      // Adjacent thin bars of the same look become one box, so that long traces give small files.
      for (; i < row.bars.size() && row.bars[i]->name == bar.name; ++i) {
        const double next = x_of(row.bars[i]->begin_ps);
        const double next_end = x_of(row.bars[i]->end_ps());
        if (next - end > gap_px || next_end - next > thin_px || end - begin <= 0) {
          break;
        }
        end = std::max(end, next_end);
      }
      const std::string_view known = fill_of(bar.name);
      const std::string fill(known.empty() ? "#ccc" : known);
      figure.box(begin, row.y, std::max(end - begin, 0.5), row_px,
                 std::string("stroke:#222;stroke-width:0.6;fill:") + fill);
      if (known.empty() && end - begin > letter_px * static_cast<double>(bar.name.size()) + 6) {
        figure.text((begin + end) / 2, row.y + row_px - 5, bar.name, "middle", 12);
      }
    }
  }

  void draw_legend(drawing& figure) const {
    double x = left();
    const double y = bottom() + 42;
    for (const bar_look& look : gantt_looks) {
      const bool used = std::ranges::any_of(rows_, [&](const shown_row& row) {
        return std::ranges::any_of(row.bars,
                                   [&](const auto* bar) { return bar->name == look.name; });
      });
      if (used) {
        figure.box(x, y, 24, 12,
                   std::string("stroke:#222;stroke-width:0.6;fill:").append(look.fill));
        figure.text(x + 30, y + 11, look.name, "start", 12);
        x += 54 + letter_px * static_cast<double>(look.name.size());
      }
    }
  }

  static std::string_view fill_of(std::string_view name) {
    const auto* const look = std::ranges::find(gantt_looks, name, &bar_look::name);
    return look == std::end(gantt_looks) ? std::string_view{} : look->fill;
  }

  static std::string number(double value) {
    char digits[32];
    const auto end =
        std::to_chars(digits, digits + sizeof(digits), value, std::chars_format::general, 6).ptr;
    return {digits, end};
  }

  const chrome_trace& trace_;
  const gantt_options& options_;
  double end_ps_ = 0;
  double left_ = 0;
  double bottom_ = 0;
  std::vector<shown_row> rows_;
};

}  // namespace detail

// Throws bad_argument for a group that the trace does not have, an empty trace or window, or a
// picture that is too narrow.
inline std::string gantt(const chrome_trace& trace, const gantt_options& options = {}) {
  return detail::gantt_chart(trace, options).svg();
}

}  // namespace instinfer::flash
