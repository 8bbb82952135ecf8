#pragma once
// The parameters of a design point by name, and lists and ranges of their values: what a sweep goes
// through.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "support/design_point.hpp"

namespace instinfer::examples {

using value = std::variant<double, std::string>;

struct parameter {
  std::string name;
  std::string meaning;  // with the unit, for axes and help
  using where = std::variant<double design_point::*, std::string design_point::*>;
  where field;
  std::vector<std::string> words = {};  // what a word may be
  double least = 1;                     // of a number
  double most = 1e9;
  bool whole = true;

  void set(design_point& p, const value& v) const {
    if (const auto* number = std::get_if<double design_point::*>(&field)) {
      p.*(*number) = std::get<double>(v);
    } else {
      p.*std::get<std::string design_point::*>(field) = std::get<std::string>(v);
    }
  }
  value get(const design_point& p) const {
    if (const auto* number = std::get_if<double design_point::*>(&field)) {
      return p.*(*number);
    }
    return p.*std::get<std::string design_point::*>(field);
  }
};

inline const std::vector<parameter>& parameters() {
  using d = design_point;
  static const std::vector<parameter> all{
      {.name = "drive", .meaning = "drive", .field = &d::drive, .words = drive_names()},
      {.name = "channels", .meaning = "flash channels", .field = &d::channels, .most = 1024},
      {.name = "chips", .meaning = "chips a channel", .field = &d::chips, .most = 1024},
      {.name = "dies", .meaning = "dies a chip", .field = &d::dies, .most = 1024},
      {.name = "planes", .meaning = "planes a die", .field = &d::planes, .most = flash::max_planes},
      {.name = "page_kib", .meaning = "page size (KiB)", .field = &d::page_kib, .most = 1024},
      {.name = "codeword_kib",
       .meaning = "ECC codeword (KiB)",
       .field = &d::codeword_kib,
       .least = 0.0625,
       .most = 1024,
       .whole = false},
      {.name = "bus_gb_s",
       .meaning = "bus of a channel (GB/s)",
       .field = &d::bus_gb_s,
       .least = 1e-3,
       .most = 1e3,
       .whole = false},
      {.name = "tr_us",
       .meaning = "array read tR (\u00b5s)",
       .field = &d::tr_us,
       .least = 1e-3,
       .most = 1e6,
       .whole = false},
      {.name = "units",
       .meaning = "accelerator",
       .field = &d::units,
       .words = {"preset", "scaled"}},
      {.name = "heads_at_once",
       .meaning = "heads in work in the accelerator (0: all)",
       .field = &d::heads_at_once,
       .most = 1e6},
      {.name = "arbitration",
       .meaning = "who gets the bus first",
       .field = &d::arbitration,
       .words = {"data_out_first", "command_first"}},
      {.name = "cache_read",
       .meaning = "cache read",
       .field = &d::cache_read,
       .words = {"no", "yes"}},
      {.name = "pairing",
       .meaning = "which pages the planes of a die read together",
       .field = &d::pairing,
       .words = {"same_row", "any"}},
      {.name = "transfer",
       .meaning = "what crosses the bus of a page",
       .field = &d::transfer,
       .words = {"page", "codeword"}},
      {.name = "route",
       .meaning = "where attention runs, and the way of the pages",
       .field = &d::route,
       .words = {"in_storage", "host_bounce", "gpu_direct", "peer_to_peer"}},
      {.name = "layout",
       .meaning = "page layout",
       .field = &d::layout,
       .words = {"token_indexed", "dual", "dim_indexed"}},
      {.name = "dims", .meaning = "dims a dim-indexed page", .field = &d::dims, .most = 8},
      {.name = "attention",
       .meaning = "attention",
       .field = &d::attention,
       .words = {"dense", "sparf", "sparq"}},
      {.name = "compression",
       .meaning = "compression of K and V traffic (x)",
       .field = &d::compression,
       .most = 128,
       .whole = false},
      {.name = "context", .meaning = "context (tokens)", .field = &d::context, .most = 1 << 24},
      {.name = "batch", .meaning = "batch (sequences)", .field = &d::batch, .most = 65'536},
      {.name = "heads", .meaning = "KV heads", .field = &d::heads, .most = 1024},
      {.name = "group", .meaning = "query heads per KV head", .field = &d::group, .most = 256},
      {.name = "layers", .meaning = "layers of the model", .field = &d::layers, .most = 1024}};
  return all;
}

inline const parameter& parameter_of(std::string_view name) {
  const auto at = std::ranges::find(parameters(), name, &parameter::name);
  require(at != parameters().end(), [&] {
    std::string names;
    for (const parameter& p : parameters()) {
      names += ' ' + p.name;
    }
    return "there is no parameter \"" + std::string(name) + "\"; there are" + names;
  });
  return *at;
}

// "4,8,16", "4:32:4" (from 4 to 32 in steps of 4), "4:32:x2" (each twice the last), words, and any
// list of these. 0 stands for the preset's number where a parameter has one. Throws bad_argument
// that names the parameter.
class value_list {
 public:
  static std::vector<value> of(const parameter& p, std::string_view text) {
    value_list list{p, text};
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      list.add(text.substr(begin, end - begin));
      begin = end + 1;
    }
    return std::move(list.values_);
  }

 private:
  static constexpr std::size_t most_values = 100'000;

  value_list(const parameter& p, std::string_view text) : parameter_{p}, text_{text} {}

  [[noreturn]] void refuse(const std::string& why) const {
    throw bad_argument(parameter_.name + ": " + why + " in \"" + std::string(text_) + "\"");
  }

  void add(std::string_view item) {
    if (item.empty()) {
      refuse("an empty value");
    }
    if (!parameter_.words.empty()) {
      // Drives may have been added since the parameters were listed.
      const bool drives = parameter_.field == parameter::where(&design_point::drive);
      const std::vector<std::string> known = drives ? drive_names() : parameter_.words;
      if (std::ranges::count(known, item) == 0) {
        std::string words;
        for (const std::string& word : known) {
          words += ' ' + word;
        }
        refuse("unknown \"" + std::string(item) + "\", one of" + words + " is wanted");
      }
      values_.emplace_back(std::string(item));
      return;
    }
    const std::size_t to = item.find(':');
    if (to == std::string_view::npos) {
      values_.emplace_back(number(item, true));
      return;
    }
    const std::size_t by = item.find(':', to + 1);
    const double first = number(item.substr(0, to), false);
    const double last = number(item.substr(to + 1, by == item.npos ? by : by - to - 1), false);
    const std::string_view step = by == item.npos ? "1" : item.substr(by + 1);
    add_range(first, last, step);
  }

  void add_range(double first, double last, std::string_view step) {
    const bool times = step.starts_with('x');
    const double by = times ? parsed(step.substr(1)) : parsed(step);
    if (!(times ? by > 1 : by > 0)) {
      refuse("a step must be above 0, a factor above 1, got \"" + std::string(step) + "\"");
    }
    if (first > last) {
      refuse("an empty range");
    }
    // Half a millionth of a step absorbs the rounding of steps like 0.1.
    for (std::size_t i = 0;; ++i) {
      const double x = times ? first * std::pow(by, static_cast<double>(i))
                             : first + static_cast<double>(i) * by;
      if (x > last * (times ? 1 + 5e-7 : 1) + (times ? 0 : 5e-7 * by)) {
        return;
      }
      if (values_.size() == most_values) {
        refuse("more than " + std::to_string(most_values) + " values");
      }
      values_.emplace_back(checked(x, false));
    }
  }

  double parsed(std::string_view text) const {
    double x = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(x)) {
      refuse("\"" + std::string(text) + "\" is not a number");
    }
    return x;
  }
  double number(std::string_view text, bool zero_allowed) const {
    return checked(parsed(text), zero_allowed);
  }
  double checked(double x, bool zero_allowed) const {
    if (zero_allowed && x == 0 && has_preset()) {
      return x;
    }
    const double rounded = std::round(x);
    const bool is_whole = std::abs(x - rounded) < 1e-9 * std::max(1.0, std::abs(x));
    if (x < parameter_.least || x > parameter_.most || (parameter_.whole && !is_whole)) {
      char range[96];
      std::snprintf(range, sizeof(range), "%s in [%g, %g] are wanted, got %g",
                    parameter_.whole ? "whole numbers" : "numbers", parameter_.least,
                    parameter_.most, x);
      refuse(range);
    }
    if (parameter_.name == "dims" && rounded != 2 && rounded != 4 && rounded != 8) {
      refuse("pages hold 2, 4 or 8 dims (0: by context)");
    }
    return parameter_.whole ? rounded : x;
  }
  bool has_preset() const { return parameter_.get(design_point{}) == value{0.0}; }

  const parameter& parameter_;
  std::string_view text_;
  std::vector<value> values_;
};

struct swept {
  const parameter* what;
  std::vector<value> values;
};

// Every combination, the last parameter fastest, each resolved; those that say the same as an
// earlier one are left out. Points whose resolution throws cannot be: presets were checked by name
// before.
inline std::vector<design_point> combinations(const std::vector<swept>& axes,
                                              std::size_t most = 1'000'000) {
  std::size_t count = 1;
  for (const swept& axis : axes) {
    require(!axis.values.empty(), [&] { return axis.what->name + ": an empty range"; });
    require(axis.values.size() <= most / count, [&] {
      return "the sweep has more than " + std::to_string(most) + " points at " + axis.what->name;
    });
    count *= axis.values.size();
  }
  std::vector<design_point> points;
  std::set<std::vector<value>> seen;
  for (std::size_t i = 0; i < count; ++i) {
    design_point p;
    std::size_t rest = i;
    for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {
      axis->what->set(p, axis->values[rest % axis->values.size()]);
      rest /= axis->values.size();
    }
    p = resolved(p);
    std::vector<value> key;
    for (const parameter& what : parameters()) {
      key.push_back(what.get(p));
    }
    if (seen.insert(std::move(key)).second) {
      points.push_back(p);
    }
  }
  return points;
}

}  // namespace instinfer::examples
