#pragma once
// Commands of the host to some drives, and their outcomes: sent together, collected together, and
// taken back everywhere if one drive fails.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "instinfer/cluster/communicator.hpp"
#include "instinfer/cluster/drive.hpp"
#include "instinfer/cluster/splits.hpp"

namespace instinfer::cluster {

// The traffic of all drives, and the time of the slowest.
struct receipt : instinfer::receipt {
  double busy_s = 0;       // measured on the drive
  double modelled_ns = 0;  // of engines that model time

  // Of calls one after the other.
  receipt& operator+=(const receipt& next) {
    traffic += next.traffic;
    busy_s += next.busy_s;
    modelled_ns += next.modelled_ns;
    return *this;
  }
};

// What a drive has done since the engine was made.
struct drive_report {
  int rank = 0;
  head_range heads;  // KV heads of the model
  std::uint64_t commands = 0;
  std::uint64_t bytes_sent = 0;      // in commands
  std::uint64_t bytes_received = 0;  // in outcomes, and in results that merge on their way
  double busy_s = 0;                 // carrying out commands
};

// Drive is cluster::drive. Drive d is rank d if the host holds one, or else rank d + 1.
template <class Drive>
class calls {
 public:
  calls(MPI_Comm of, bool host_holds)
      : ranks_{of}, first_rank_{host_holds ? 0 : 1}, drives_{ranks_.size() - first_rank_} {}

  communicator& ranks() { return ranks_; }
  const communicator& ranks() const { return ranks_; }
  bool is_host() const { return ranks_.rank() == 0; }
  bool is_drive() const { return ranks_.rank() >= first_rank_; }
  int drives() const { return drives_; }
  int rank_of(int drive) const { return drive + first_rank_; }
  int own_number() const { return ranks_.rank() - first_rank_; }
  std::size_t own_index() const { return at(own_number()); }
  std::optional<Drive>& own() { return own_; }
  const std::optional<Drive>& own() const { return own_; }

  // Memory for all drives of a host.
  void prepare(const std::vector<drive_part>& parts) {
    for (const drive_part& part : parts) {
      reports_.push_back({.rank = rank_of(part.drive), .heads = part.heads});
    }
    out_.resize(parts.size());
    in_.resize(parts.size());
    outcomes_.resize(parts.size());
    asked_.reserve(parts.size());
  }

  // Starts a list of commands. Nothing is sent before the list is complete, so that an exception
  // on the way leaves no drive with a command that others lack.
  void begin() { asked_.clear(); }
  // The message of the next command, of a higher drive than the one before. The caller may put
  // more.
  message& command_to(int drive, const command& c) {
    asked_.push_back(drive);
    message& m = out_[at(drive)];
    m.clear();
    m.put(c);
    return m;
  }
  void send() {
    for (const int d : asked_) {
      if (!is_own(d)) {
        ranks_.start_send(rank_of(d), out_[at(d)]);
      }
      reports_[at(d)].commands += 1;
      reports_[at(d)].bytes_sent += out_[at(d)].size();
    }
    ranks_.finish_sends();
  }

  // Waits for all outcomes.
  void take_outcomes() {
    for (const int d : asked_) {
      take_outcome(d);
    }
  }
  // What they say together. If drives failed, throws the exception of the first; before, the others
  // take their command back, if it is `undoable`.
  receipt settle(bool undoable) {
    receipt done;
    int failed = -1;
    for (const int d : asked_) {
      const outcome& o = outcomes_[at(d)];
      done.traffic += o.traffic;
      done.busy_s = std::max(done.busy_s, o.busy_s);
      done.modelled_ns = std::max(done.modelled_ns, o.modelled_ns);
      reports_[at(d)].busy_s += o.busy_s;
      reports_[at(d)].bytes_received += in_[at(d)].size();
      if (o.failed != failure::type::none && failed < 0) {
        failed = d;
      }
    }
    if (failed >= 0) {
      const failure first = failure::take_from(in_[at(failed)]);
      if (undoable) {
        undo();
      }
      first.rethrow(rank_of(failed));
    }
    return done;
  }
  receipt call(bool undoable) {
    send();
    take_outcomes();
    return settle(undoable);
  }
  // Counts results that a drive has sent to another one.
  void add_results(int drive, std::uint64_t bytes) { reports_[at(drive)].bytes_received += bytes; }

  // The drives of the last list, and the results of one of them.
  const std::vector<int>& asked() const { return asked_; }
  message& results_of(int drive) { return in_[at(drive)]; }
  const std::vector<drive_report>& reports() const { return reports_; }

 private:
  static std::size_t at(int drive) { return static_cast<std::size_t>(drive); }
  bool is_own(int drive) const { return rank_of(drive) == ranks_.rank(); }

  void take_outcome(int d) {
    if (is_own(d)) {
      own_->execute(out_[at(d)], in_[at(d)]);
    } else {
      ranks_.receive(rank_of(d), in_[at(d)]);
    }
    outcomes_[at(d)] = in_[at(d)].template take<outcome>();
  }

  void undo() {
    std::erase_if(asked_, [&](int d) { return outcomes_[at(d)].failed != failure::type::none; });
    for (const int d : asked_) {
      out_[at(d)].clear();
      out_[at(d)].put(command{.what = operation::undo});
    }
    send();
    int stuck = -1;
    for (const int d : asked_) {
      take_outcome(d);
      stuck = outcomes_[at(d)].failed != failure::type::none ? d : stuck;
    }
    require<error>(stuck < 0, [&] {
      return "rank " + std::to_string(rank_of(stuck)) +
             ": a command that another drive refused cannot be taken back here: " +
             failure::take_from(in_[at(stuck)]).text + "; reclaim the sequence";
    });
  }

  communicator ranks_;
  int first_rank_;
  int drives_;
  std::optional<Drive> own_;

  std::vector<message> out_, in_;  // of each drive
  std::vector<outcome> outcomes_;
  std::vector<drive_report> reports_;
  std::vector<int> asked_;
};

}  // namespace instinfer::cluster
