#pragma once
// long because: it has the calls of an engine, each as commands to drives.
// One engine over many drives, each of which is a rank of MPI. docs/cluster.md tells how to use it.

#include <chrono>
#include <concepts>
#include <istream>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "instinfer/cluster/calls.hpp"
#include "instinfer/cluster/file.hpp"
#include "instinfer/cluster/placement.hpp"
#include "instinfer/cluster/posted_batch.hpp"
#include "instinfer/cluster/slices.hpp"
#include "instinfer/engine/new_tokens.hpp"
#include "instinfer/store/sequences/value_checks.hpp"

namespace instinfer::cluster {

struct options {
  // Whether rank 0 is a drive, too. Otherwise it only commands the others.
  bool host_holds = false;
};

// Every rank of a communicator constructs it with the same arguments. Then rank 0, the host, calls
// it as one engine, while the other ranks are in serve(). Its destructor on rank 0, or close(),
// ends serve() on all. The host's calls are made by one thread, one at a time.
//
// Engine is instinfer::engine over any path and store, or flash::engine. S says which drive has
// what (menu: cluster/splits.hpp). Workers computes the attends of a rank.
//
// An exception of a drive comes to the host as the same type, with the drive's rank in its message;
// of several, that of the lowest rank. All drives are then as before the call, but for build, which
// keeps the heads that it has finished. Of formats with codecs, a page that an append had filled
// before another drive failed opens again with its coded values.
template <class Engine, class S, parallel::Parallel Workers = parallel::serial>
class engine : split_rules<S, typename computing_engine<Engine>::policy> {
  using base = computing_engine<Engine>;
  static_assert(
      attention::takes_back<typename base::summaries>,
      "instinfer: where a drive fails, the others take an append back, but a summary cannot take tokens back, see summaries/concepts.hpp");

 public:
  using element = typename base::element;
  using policy = typename base::policy;
  using format = typename base::format;
  using summaries = typename base::summaries;

  // Collective. make(part) returns the Engine of one drive; ranks that are drives call it. Throws
  // the same exception on all ranks: that of the lowest rank that failed, or bad_argument if ranks
  // differ in shape, split, format, method, layout or logit rule. The values in a policy object are
  // not compared.
  template <std::invocable<const drive_part&> Make>
  engine(MPI_Comm of, const model_shape& shape, Make&& make, const S& split = {},
         const options& how = {}, const Workers& workers = {})
      : calls_{of, how.host_holds}, placed_{shape, split} {
    failure mine;
    std::string of_drive;
    try {
      placed_.share_among(calls_.drives());
      calls_.prepare(placed_.parts());
      if (calls_.is_drive()) {
        calls_.own().emplace(placed_.parts()[calls_.own_index()], split, workers, make);
        of_drive = properties_of_drive(local());
      }
    } catch (...) {
      mine = failure::current();
    }
    agree(calls_.ranks(), mine, properties_of_rank<Engine>(split, shape, calls_.drives()),
          of_drive);
    batch_.connect(placed_, calls_);
    open_ = true;
  }
  // The same with engines that are made of a capacity, which is that of one drive. The arrays of
  // the logit rule are those of the whole model, on all ranks.
  engine(MPI_Comm of, const model_shape& shape, const store::capacity& capacity,
         const policy& attention = {}, const logit_rule& logits = {}, const S& split = {},
         const options& how = {}, const Workers& workers = {})
      : engine{of,
               shape,
               [&](const drive_part& part) {
                 return Engine(part.shape, capacity, attention, part.logits(logits, sinks_));
               },
               split,
               how,
               workers} {}

  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;
  ~engine() {
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

  // The calls of one engine, for rank 0. They throw bad_argument on other ranks, and between post
  // and wait.
  sequence open() {
    begin("open");
    return add({.what = operation::open}, std::vector<layer_tokens>(at(shape().layers)),
               placed_.next_home());
  }
  sequence fork(sequence seq) {
    begin("fork");
    std::vector<layer_tokens> layers = placed_.layers(seq);
    return add({.what = operation::fork, .origin = seq.slot}, std::move(layers), placed_.home(seq));
  }

  receipt append(sequence seq, int layer, std::span<const element> k,
                 std::span<const element> v = {}, std::span<const float> index_keys = {}) {
    begin("append");
    layer_tokens& to = placed_.layer(seq, layer);
    const std::uint64_t count = store::storable_tokens<format>(k, v, shape().kv_heads);
    attention::check_index_keys<summaries>(index_keys, count,
                                           format::is_padded ? 0 : format::k_dim);
    const int index_dim = count == 0 ? 0 : static_cast<int>(index_keys.size() / count);
    placed_.for_each_holder(seq.slot, [&](const drive_part& part) {
      const token_slice<S> mine{placed_.split(), part, to.positions, count};
      if (mine.size() > 0) {
        message& m = calls_.command_to(
            part.drive, {.what = operation::append, .slot = seq.slot, .layer = layer});
        const auto [first, heads] = std::pair(part.heads.first, part.heads.size());
        put_rows(m, k, mine, shape().kv_heads, first, heads, format::k_dim);
        put_rows(m, v, mine, shape().kv_heads, first, heads, format::v_dim);
        put_rows(m, index_keys, mine, 1, 0, 1, index_dim);
      }
    });
    const receipt done = calls_.call(true);
    to.positions += count;
    return done;
  }

  receipt build(sequence seq, int layer)
    requires requires(Engine& e) { e.build(seq, layer); }
  {
    begin("build");
    placed_.layer(seq, layer);
    command_all({.what = operation::build, .slot = seq.slot, .layer = layer});
    return calls_.call(false);
  }

  // post and wait.
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out) {
    const attend_request one{seq, q, out};
    return attend({&one, 1}, layer);
  }
  receipt attend(std::span<const attend_request> batch, int layer) {
    post(layer, batch);
    return wait();
  }

  // Appends the new tokens of a sequence, one or n, and attends for them. If it throws, the layer
  // is as before.
  receipt decode(sequence seq, int layer, std::span<const element> k, std::span<const element> v,
                 std::span<const float> q, std::span<float> out) {
    const auto heads = static_cast<std::size_t>(shape().q_heads);
    const std::size_t n = count_of<format>(new_tokens<element>{k, v}, shape().kv_heads);
    require_query_each(q.size() / (heads * static_cast<std::size_t>(format::k_dim)), n);
    const std::uint64_t before = positions(seq, layer);
    receipt done = append(seq, layer, k, v);
    try {
      done.traffic += attend(seq, layer, q, out).traffic;
      return done;
    } catch (...) {
      const auto number = static_cast<std::uint32_t>(layer);
      truncate(seq, store::truncate_range{number, number + 1, before});
      throw;
    }
  }

  // Sends the queries of a batch, one message to each drive that has some of its tokens, and
  // returns when they have left. The drives compute meanwhile; a host that is a drive computes in
  // wait(). The outputs must live until then. `visible` counts positions from the sequence's first
  // token on, up to 2^32. Throws what attend throws for bad requests.
  void post(int layer, std::span<const attend_request> batch) {
    begin("attend");
    batch_.post(placed_, layer, batch, calls_);
  }

  // Collects the results of the posted batch. If a drive failed, throws its exception, and all
  // outputs stay as they were. The traffic is that of all drives: by_tokens sends a query to each.
  receipt wait() {
    require(batch_.pending(), [] { return std::string("wait: no attend is posted"); });
    const auto start = std::chrono::steady_clock::now();
    const receipt done = batch_.wait(calls_, placed_);
    waited_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return done;
  }

  // Frees a sequence, or the oldest tokens of some of its layers.
  void reclaim(sequence seq) {
    begin("reclaim");
    placed_.layers(seq);
    command_all({.what = operation::reclaim, .slot = seq.slot});
    calls_.call(false);
    placed_.remove(seq);
  }
  void reclaim(sequence seq, const store::reclaim_range& range) {
    begin("reclaim");
    const auto layers =
        placed_.layers(seq, "reclaim", range, [&](std::uint32_t number, const layer_tokens& l) {
          store::require_reclaimable(number, l.positions, range.tokens_before, true);
        });
    for (const operation what : {operation::check_reclaim, operation::reclaim_range}) {
      calls_.begin();
      placed_.for_each_holder(seq.slot, [&](const drive_part& part) {
        const store::reclaim_range mine{range.first_layer, placed_.end_of(range),
                                        placed_.tokens_of(part, range.tokens_before)};
        calls_.command_to(part.drive, {.what = what, .slot = seq.slot, .layers = mine});
      });
      calls_.call(false);
    }
    for (layer_tokens& l : layers) {
      l.first = std::max(l.first, range.tokens_before);
    }
  }

  // Takes back the newest tokens. On several drives it works on forks, so that a drive that fails
  // leaves all as they were; a fork copies open pages, summaries and page tables.
  receipt truncate(sequence seq, std::uint64_t tokens) {
    return truncate(seq, store::truncate_range{.tokens = tokens});
  }
  receipt truncate(sequence seq, const store::truncate_range& range) {
    begin("truncate");
    const auto layers =
        placed_.layers(seq, "truncate", range, [&](std::uint32_t number, const layer_tokens& l) {
          store::require_truncatable(number, l.first, l.positions, range.tokens);
        });
    const bool many = placed_.holders(seq.slot) > 1;
    const operation what = many ? operation::truncate_copy : operation::truncate;
    placed_.for_each_holder(seq.slot, [&](const drive_part& part) {
      calls_.command_to(part.drive, {.what = what,
                                     .slot = seq.slot,
                                     .layers = {range.first_layer, placed_.end_of(range), 0},
                                     .tokens = placed_.tokens_of(part, range.tokens)});
    });
    const receipt done = calls_.call(true);
    if (many) {
      calls_.begin();
      command_all({.what = operation::commit, .slot = seq.slot});
      calls_.call(false);
    }
    for (layer_tokens& l : layers) {
      l.positions = range.tokens;
    }
    return done;
  }

  // Writes a sequence to a binary stream, and loads it into an open, empty sequence of a cluster
  // with the same split. Files of by_sequences load on any number of drives, others on as many as
  // they were saved from (cluster/file.hpp).
  void save(sequence seq, std::ostream& out, std::string_view model = {})
    requires requires(const Engine& e) { e.save(seq, out); }
  {
    begin("save");
    file_head head{.model = std::string(model),
                   .split = placed_.split().name(),
                   .layers = placed_.layers(seq)};
    command_all({.what = operation::save, .slot = seq.slot});
    calls_.call(false);
    std::vector<std::string_view> parts;
    for (const int d : calls_.asked()) {
      parts.push_back(calls_.results_of(d).take_text());
      head.part_bytes.push_back(parts.back().size());
    }
    store::file_writer to{out};
    to(head);
    to.end_block();
    for (const std::string_view part : parts) {
      to.bytes(std::as_bytes(std::span(part)));
    }
    to.flush();
  }
  receipt load(sequence seq, std::istream& in, std::string_view model = {})
    requires requires(Engine& e) { e.load(seq, in); }
  {
    begin("load");
    std::vector<layer_tokens>& layers = placed_.layers(seq);
    for (const layer_tokens& l : layers) {
      require(l.positions == 0, [&] {
        return "load: the sequence has " + std::to_string(l.positions) +
               " tokens already; open another one";
      });
    }
    file_head head = file_head::read(in, std::string(model), placed_.split().name(), layers.size(),
                                     placed_.holders(seq.slot));
    auto bytes = head.part_bytes.begin();
    placed_.for_each_holder(seq.slot, [&](const drive_part& part) {
      message& m = calls_.command_to(part.drive,
                                     {.what = operation::load, .slot = seq.slot, .bytes = *bytes});
      for (const layer_tokens& l : head.layers) {
        m.put(placed_.tokens_of(part, l.positions));
      }
      put_part(m, in, *bytes++);
    });
    const receipt done = calls_.call(true);
    layers = std::move(head.layers);
    return done;
  }

  // Live tokens of a layer, and tokens ever appended without those taken back.
  std::uint32_t tokens(sequence seq, int layer) const {
    const layer_tokens& of = placed_.layer(seq, layer);
    return static_cast<std::uint32_t>(of.positions - of.first);
  }
  std::uint64_t positions(sequence seq, int layer) const {
    return placed_.layer(seq, layer).positions;
  }

  const model_shape& shape() const { return placed_.shape(); }
  int rank() const { return calls_.own_number() + calls_.rank_of(0); }
  bool is_host() const { return calls_.is_host(); }
  // The engine of this rank, which must be a drive.
  const Engine& local() const { return calls_.own()->engine(); }
  // On the host: what each drive has done, and the seconds that wait() took in all.
  const std::vector<drive_report>& reports() const { return calls_.reports(); }
  double waited_s() const { return waited_s_; }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

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

  sequence add(command c, std::vector<layer_tokens> layers, std::uint32_t home) {
    const sequence seq = placed_.add(std::move(layers), home);
    c.slot = seq.slot;
    try {
      command_all(c);
      calls_.call(true);
    } catch (...) {
      placed_.remove(seq);
      throw;
    }
    return seq;
  }

  // To all drives that have the sequence.
  void command_all(const command& c) {
    placed_.for_each_holder(c.slot,
                            [&](const drive_part& part) { calls_.command_to(part.drive, c); });
  }
  // The next bytes of a file, in steps, so that a damaged size does not take more memory than the
  // file has data.
  static void put_part(message& m, std::istream& in, std::uint64_t bytes) {
    while (bytes > 0) {
      const std::span<char> to = m.room<char>(std::min<std::uint64_t>(bytes, 1 << 20));
      in.read(to.data(), std::ssize(to));
      require<bad_file>(in.gcount() == std::ssize(to), [&] {
        return "load: the file is truncated, " + std::to_string(bytes) + " bytes of a part lack";
      });
      bytes -= to.size();
    }
  }

  std::vector<float> sinks_;  // of this drive's logit rule
  calls<drive<Engine, S, Workers>> calls_;
  placement<S> placed_;
  posted_batch<base, S> batch_;
  bool open_ = false;
  double waited_s_ = 0;
};

}  // namespace instinfer::cluster
