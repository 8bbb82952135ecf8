#pragma once
// The ranks of an engine over many drives: they agree when they make it, serve the host, and end.

#include <concepts>
#include <string>
#include <vector>

#include "instinfer/cluster/calls.hpp"
#include "instinfer/cluster/placement.hpp"
#include "instinfer/cluster/posted_batch.hpp"

namespace instinfer::cluster {

struct options {
  // Whether rank 0 is a drive, too. Otherwise it only commands the others.
  bool host_holds = false;
};

// cluster/engine.hpp says how it is used.
template <class Engine, class S, parallel::Parallel Workers>
class engine_base : split_rules<S, typename computing_engine<Engine>::policy> {
  static_assert(
      attention::takes_back<typename computing_engine<Engine>::summaries>,
      "instinfer: where a drive fails, the others take an append back, but a summary cannot take tokens back, see summaries/concepts.hpp");

 public:
  using base_engine = computing_engine<Engine>;
  using element = typename base_engine::element;
  using policy = typename base_engine::policy;
  using format = typename base_engine::format;
  using summaries = typename base_engine::summaries;

  // Collective. make(part) returns the Engine of one drive; ranks that are drives call it. Throws
  // the same exception on all ranks: that of the lowest rank that failed, or bad_argument if ranks
  // differ in shape, split, format, method, layout or logit rule. The values in a policy object are
  // not compared.
  template <std::invocable<const drive_part&> Make>
  engine_base(MPI_Comm of, const model_shape& shape, Make&& make, const S& split = {},
              const options& how = {}, const Workers& workers = {})
      : calls_{of, how.host_holds}, placed_{shape, split} {
    failure mine;
    drive_facts<base_engine> of_drives;
    try {
      placed_.share_among(calls_.drives());
      calls_.prepare(placed_.parts());
      if (calls_.is_drive()) {
        calls_.own().emplace(placed_.parts()[calls_.own_index()], split, workers, make);
        of_drives = facts_of_drive(local());
      }
    } catch (...) {
      mine = failure::current();
    }
    agree(calls_.ranks(), mine, properties_of_rank<Engine>(split, shape, calls_.drives()),
          of_drives);
    tiles_ = of_drives.tiles;
    attention_ = of_drives.attention;
    batch_.connect(placed_, calls_);
    open_ = true;
  }
  // The same with engines that are made of a capacity, which is that of one drive. The arrays of
  // the logit rule are those of the whole model, on all ranks.
  engine_base(MPI_Comm of, const model_shape& shape, const store::capacity& capacity,
              const policy& attention = {}, const logit_rule& logits = {}, const S& split = {},
              const options& how = {}, const Workers& workers = {})
      : engine_base{of,
                    shape,
                    [&](const drive_part& part) {
                      return Engine(part.shape, capacity, attention, part.logits(logits, sinks_));
                    },
                    split,
                    how,
                    workers} {}

  engine_base(const engine_base&) = delete;
  engine_base& operator=(const engine_base&) = delete;
  ~engine_base() {
    if (open_ && calls_.is_host()) {
      end();
    } else if (open_) {
      calls_.ranks().abort("this drive leaves before the host has closed its engine");
    }
  }

  // On the other ranks: carries out the host's commands until it closes.
  void serve() {
    require(!calls_.is_host() && open_, [&] {
      return std::string(calls_.is_host() ? "serve: rank 0 is the host, the other ranks serve"
                                          : "serve: the host has closed this engine");
    });
    message in, out;
    for (;;) {
      calls_.ranks().receive(0, in);
      if (in.front<command>().what == operation::close) {
        open_ = false;
        return;
      }
      calls_.own()->execute(in, out);
      calls_.ranks().send(0, out);
      if (S::splits_tokens && in.front<command>().what == operation::attend) {
        batch_.give(placed_.parts()[calls_.own_index()], calls_.own()->rows());
      }
    }
  }
  // Ends serve() on the other ranks; a posted attend has no results then. All further calls throw
  // bad_argument.
  void close() {
    require(calls_.is_host() && open_,
            [] { return std::string("close: rank 0 closes, once, and the other ranks serve"); });
    end();
  }

  const model_shape& shape() const { return placed_.shape(); }
  int rank() const { return calls_.own_number() + calls_.rank_of(0); }
  bool is_host() const { return calls_.is_host(); }
  // The engine of this rank, which must be a drive.
  const Engine& local() const { return calls_.own()->engine(); }
  // On the host: what each drive has done.
  const std::vector<drive_report>& reports() const { return calls_.reports(); }

 protected:
  // Every call of the host begins with it: throws bad_argument if no call is possible now.
  void begin(const char* who) {
    require(calls_.is_host() && open_ && !batch_.pending(), [&] {
      return std::string(who) + (!calls_.is_host() ? ": rank 0 calls, the other ranks serve"
                                 : !open_          ? ": this engine is closed"
                                                   : ": an attend is posted; wait for it first");
    });
    calls_.begin();
  }
  void end() {
    if (batch_.pending()) {
      batch_.drop(calls_, placed_);
    }
    calls_.begin();
    for (const drive_part& part : placed_.parts()) {
      if (calls_.rank_of(part.drive) != 0) {
        calls_.command_to(part.drive, {.what = operation::close});
      }
    }
    calls_.send();
    open_ = false;
  }

  // To all drives that have the sequence.
  void command_all(const command& c) {
    placed_.for_each_holder(c.slot,
                            [&](const drive_part& part) { calls_.command_to(part.drive, c); });
  }

  std::vector<float> sinks_;  // of this drive's logit rule
  calls<drive<Engine, S, Workers>> calls_;
  placement<S> placed_;
  posted_batch<base_engine, S> batch_;
  layout::tiling tiles_;  // of all drives
  policy attention_;      // of all drives
  bool open_ = false;
};

}  // namespace instinfer::cluster
