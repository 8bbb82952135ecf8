#pragma once
// Collects what happened when and writes it in the Chrome trace format, which Perfetto and chrome://tracing open.

#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <vector>

namespace instinfer::flash {

class chrome_trace {
 public:
  // A bar of [begin_ps, begin_ps + duration_ps) in the named row of the named group. Rows appear in order of first use.
  void add(const std::string& group, const std::string& row, const char* name, double begin_ps,
           double duration_ps) {
    const std::size_t g = groups_.try_emplace(group, groups_.size()).first->second;
    const std::size_t r = rows_.try_emplace({g, row}, rows_.size()).first->second;
    bars_.push_back({g, r, name, begin_ps, duration_ps});
  }

  bool empty() const { return bars_.empty(); }

  // One JSON object; times in microseconds, as the format wants.
  void write(std::ostream& out) const {
    constexpr double us = 1e6;  // in ps
    out << "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
    for (const auto& [group, g] : groups_) {
      out << R"({"ph":"M","name":"process_name","pid":)" << g << R"(,"args":{"name":")" << group
          << "\"}},\n";
    }
    for (const auto& [key, r] : rows_) {
      out << R"({"ph":"M","name":"thread_name","pid":)" << key.first << ",\"tid\":" << r
          << R"(,"args":{"name":")" << key.second << "\"}},\n";
    }
    const char* separator = "";
    for (const bar& b : bars_) {
      out << separator << R"({"ph":"X","name":")" << b.name << "\",\"pid\":" << b.group
          << ",\"tid\":" << b.row << ",\"ts\":" << b.begin_ps / us
          << ",\"dur\":" << b.duration_ps / us << "}";
      separator = ",\n";
    }
    out << "\n]}\n";
  }

 private:
  struct bar {
    std::size_t group;
    std::size_t row;
    const char* name;
    double begin_ps;
    double duration_ps;
  };
  std::map<std::string, std::size_t> groups_;
  std::map<std::pair<std::size_t, std::string>, std::size_t> rows_;
  std::vector<bar> bars_;
};

}  // namespace instinfer::flash
