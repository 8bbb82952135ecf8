#pragma once
// long because: it has the calls of every engine, each with its time.
// The flash path: the commands of every engine, with the time they take on the modelled drive and
// route.

#include "instinfer/engine/engine.hpp"
#include "instinfer/flash/attend_clock.hpp"
#include "instinfer/flash/drive_check.hpp"
#include "instinfer/flash/foreground_writes.hpp"
#include "instinfer/flash/locating_store.hpp"
#include "instinfer/flash/random_selection.hpp"
#include "instinfer/ssd/spec/placement.hpp"
#include "instinfer/store/pages/ledger.hpp"

namespace instinfer::flash {

// Traffic and times of a call.
struct receipt : instinfer::receipt, call_times {
  receipt& operator+=(const receipt& next) {
    traffic += next.traffic;
    call_times::operator+=(next);
    return *this;
  }
};

// Path decides the selection. By default it is random, without data. A compute path (cpu::path,
// reference::path) attends as in its own engine, and its accesses are timed. The work of the GPU is
// not counted on any route. With an FTL store, pages are read at their physical places, and the
// FTL's own moves and erases are charged. Writes times the flash part of appends (menu:
// foreground_writes.hpp).
template <Design D, class Format = kv_format<>, class Path = random_selection,
          class Arbitration = data_out_first, class Store = default_store<Path>,
          template <class> class Writes = foreground_writes>
class engine {
 public:
  static constexpr bool holds_data = Store::holds_data;
  using store_type = Store;
  using inner_type = instinfer::engine<D, Format, Path, store_type>;
  using design_type = D;
  using element = typename inner_type::element;
  using policy = typename D::attention_policy;
  using route = typename D::transfer_policy;

  // drive and route_times default to those of the design and the paper. The link rate of the drive
  // replaces that of route_times. Throws bad_argument for an invalid drive, a page size that
  // differs from the layout's, or a drive smaller than the capacity.
  engine(const model_shape& shape, const store::capacity& capacity, const policy& attention = {},
         const logit_rule& logits = {}, const drive_spec& drive = D::drive,
         const transfer::route_spec& route_times = {}, const drive_rules& rules = {},
         const Arbitration& arbitration = {})
      : engine{(check_drive<D, Format>(drive, capacity, rules), drive), route_times, rules,
               arbitration,
               inner_type{shape, capacity, attention, logits,
                          static_cast<std::uint32_t>(drive.geometry.channels)}} {}
  // The same over a given store of the drive's pages. Only writes in the foreground: those of other
  // engines on the same store would not be in this one's backlog.
  engine(const model_shape& shape, const store::capacity& capacity, Store pages,
         const policy& attention = {}, const logit_rule& logits = {},
         const drive_spec& drive = D::drive, const transfer::route_spec& route_times = {},
         const drive_rules& rules = {}, const Arbitration& arbitration = {})
    requires std::same_as<Writes<Arbitration>, foreground_writes<Arbitration>>
      : engine{(check_drive<D, Format>(drive, capacity, rules), drive), route_times, rules,
               arbitration, inner_type{shape, capacity, std::move(pages), attention, logits}} {}

  sequence open() { return inner_.open(); }
  // Like instinfer::engine's. No page is read or written, so it takes no time.
  sequence fork(sequence seq) { return inner_.fork(seq); }

  // Like instinfer::engine::append, with times. If memory runs out during the timing, the tokens
  // stay appended.
  receipt append(sequence seq, int layer, std::span<const element> k,
                 std::span<const element> v = {}, std::span<const float> index_keys = {}) {
    return timed_write(inner_.append(seq, layer, k, v, index_keys));
  }
  receipt append_count(sequence seq, int layer, std::uint64_t count)
    requires(!holds_data)
  {
    return timed_write(inner_.append_count(seq, layer, count));
  }
  // The same without times, for a cache that is only read: timing is most of an append's work here.
  instinfer::receipt append_untimed(sequence seq, int layer, std::uint64_t count)
    requires(!holds_data)
  {
    return untimed([&] { return append_count(seq, layer, count); });
  }

  // f(). The calls of this engine in it do all but take time: receipts have traffic alone, and
  // nothing is left for the background. For a prompt that no figure should include.
  template <class F>
  decltype(auto) untimed(F&& f) {
    struct timed_again {
      bool& timed;
      bool before;
      ~timed_again() { timed = before; }
    } const after{timed_, timed_};
    timed_ = false;
    return f();
  }

  // Like instinfer::engine::build, with times: tokens are read, and written in another order.
  receipt build(sequence seq, int layer)
    requires requires(inner_type& e) { e.build(seq, layer); }
  {
    return timed_write(inner_.build(seq, layer));
  }

  // Like instinfer::engine's, with the time of its writes. The attention of a prompt is the GPU's.
  receipt prefill(sequence seq, int layer, std::span<const element> k,
                  std::span<const element> v = {}, std::span<const float> q = {},
                  std::span<float> out = {}) {
    return timed_write(inner_.prefill(seq, layer, k, v, q, out));
  }

  // Like instinfer::engine's, with the times of appends and attends. Several new tokens come one
  // after the other. If one fails, none stays; the outputs before it are then already written.
  receipt decode(sequence seq, int layer, std::span<const element> k, std::span<const element> v,
                 std::span<const float> q, std::span<float> out) {
    const new_tokens<element> all{k, v};
    const model_shape& shape = inner_.cache().shape();
    const std::size_t n = count_of<Format>(all, shape.kv_heads);
    const std::size_t q_row = shape.q_values(Format::k_dim);
    const std::size_t out_row = shape.q_values(Format::v_dim);
    require_query_each(q.size() % q_row == 0 ? q.size() / q_row : n + 1, n);
    require_query_each(out.size() % out_row == 0 ? out.size() / out_row : n + 1, n);
    layer_before undo(inner_.cache(), seq, layer);
    return undone_on_failure({&undo, 1}, [&](receipt& done) {
      for (std::size_t i = 0; i < n; ++i) {
        const new_tokens<element> one = all.part(i, i + 1, n);
        done += append(seq, layer, one.k, one.v);
        done += attend(seq, layer, q.subspan(i * q_row, q_row), out.subspan(i * out_row, out_row));
      }
    });
  }
  // The next token of each of several sequences; batch[i] has the query of tokens[i].
  receipt decode_batch(int layer, std::span<const new_tokens<element>> tokens,
                       std::span<const attend_request> batch) {
    require_query_each(batch.size(), tokens.size());
    require_distinct(batch, slots_, "decode", "its new token goes into one request");
    std::vector<layer_before<typename inner_type::cache_type>> undo;
    undo.reserve(batch.size());
    for (const attend_request& r : batch) {
      undo.emplace_back(inner_.cache(), r.seq, layer);
    }
    return undone_on_failure(undo, [&](receipt& done) {
      for (std::size_t i = 0; i < batch.size(); ++i) {
        done += append(batch[i].seq, layer, tokens[i].k, tokens[i].v, tokens[i].index_keys);
      }
      done += attend_batch(layer, batch);
    });
  }

  // Like instinfer::engine's. A load is timed as writes; a save is no part of decoding.
  void save(sequence seq, std::ostream& out, std::string_view model = {}) const
    requires holds_data
  {
    inner_.save(seq, out, model);
  }
  receipt load(sequence seq, std::istream& in, std::string_view model = {})
    requires holds_data
  {
    return timed_write(inner_.load(seq, in, model));
  }

  // One query of a batch; q [q_heads, k_dim], out [q_heads, v_dim].
  using request = attend_request;

  // Like instinfer::engine::attend, with times.
  template <class Trace = no_trace>
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out,
                 Trace* trace = nullptr) {
    const request one{seq, q, out};
    return attend_batch(layer, {&one, 1}, trace);
  }

  // One layer's attention for many sequences: the drive works on all their heads at the same time.
  // Writes bars to `trace` if given, without background writes. An invalid request throws; the
  // outputs of earlier requests are then already written.
  template <class Trace = no_trace>
  receipt attend_batch(int layer, std::span<const request> batch, Trace* trace = nullptr) {
    if constexpr (attention::learns<typename inner_type::summaries>) {
      require_distinct(batch, slots_);
    }
    receipt done;
    work_.clear();
    locations_.clear();
    transfer::link_bytes link;
    for (const request& r : batch) {
      const auto q_values = inner_.cache().shape().q_values(Format::k_dim);
      require(r.q.size() <= q_values, [&] {
        return "flash engine: one query a sequence is timed, q must be [" +
               std::to_string(inner_.cache().shape().q_heads) + ", " +
               std::to_string(Format::k_dim) + "]";
      });
      done.traffic += record(r, layer);
      const auto moved =
          route::bytes({}, r.query_bytes(sizeof(element)), r.output_bytes(sizeof(element)));
      link.up += moved.up;
      link.down += moved.down;
    }
    if (!timed_) {
      work_.clear();
      return done;
    }
    done.link_ns = route_ns(link);
    draw_unit(trace, "link", "q down, output up", 0, done.link_ns);
    locate_work();
    attends_.time(work_, locations_, done, trace, route_of_pages());
    writes_.run_beside(attends_, work_, locations_, done);
    return done;
  }

  // Times the last attend again, with another accelerator, to show what a faster one would gain.
  // Without background writes.
  call_times last_attend_with(const accelerator_spec& units) const {
    drive_spec other = drive_;
    other.units = units;
    attend_clock<route::computes_in_drive, Arbitration> clock{other, rules_, group(), element_bytes,
                                                              arbitration_};
    call_times done;
    clock.time(work_, locations_, done, static_cast<no_trace*>(nullptr), route_of_pages());
    return done;
  }

  // Time without a call, on the GPU for example: background writes go on.
  void wait(double ns) { writes_.pass(ns); }
  std::size_t backlog() const { return writes_.backlog(); }  // background writes that are not done

  // For times without host requests: the FTL of the store empties failing blocks and erases dead
  // blocks, at most `most_erases`.
  receipt idle(std::uint64_t most_erases = ~std::uint64_t{0})
    requires LocatingStore<Store>
  {
    inner_.translation().idle(most_erases);
    return receipt_of_operations();
  }
  // Moves the pages of blocks that are due (ssd/ftl/reliability.hpp).
  template <class Due>
  receipt refresh(Due&& due)
    requires LocatingStore<Store>
  {
    inner_.translation().refresh(due);
    return receipt_of_operations();
  }

  // Like instinfer::engine's, with the time of the pages that are read; releasing pages takes none.
  receipt truncate(sequence seq, std::uint64_t tokens) {
    return truncate(seq, store::truncate_range{.tokens = tokens});
  }
  receipt truncate(sequence seq, const store::truncate_range& range) {
    operations_.clear();
    receipt done;
    done.traffic = inner_
                       .truncate(seq, range,
                                 [&](std::span<const page_id> pages) {
                                   for (const page_id page : pages) {
                                     operations_.reads.push_back(locate(page));
                                     if constexpr (LocatingStore<Store>) {
                                       inner_.translation().count_read(page);
                                     }
                                   }
                                 })
                       .traffic;
    if (timed_) {
      writes_.charge(operations_, done);
      writes_.pass(done.total_ns());
    }
    operations_.clear();
    return done;
  }

  void reclaim(sequence seq) { inner_.reclaim(seq); }
  void reclaim(sequence seq, const store::reclaim_range& range) { inner_.reclaim(seq, range); }
  void check_truncate(sequence seq, const store::truncate_range& range) const {
    inner_.check_truncate(seq, range);
  }
  void check_reclaim(sequence seq, const store::reclaim_range& range) const {
    inner_.check_reclaim(seq, range);
  }
  void check_load(sequence seq) const { inner_.check_load(seq); }

  // Like instinfer::engine's.
  std::uint32_t tokens(sequence seq, int layer) const { return inner_.tokens(seq, layer); }
  std::uint64_t positions(sequence seq, int layer) const { return inner_.positions(seq, layer); }
  std::uint64_t numbered_from(sequence seq, int layer) const {
    return inner_.numbered_from(seq, layer);
  }

  // Like instinfer::engine's.
  const policy& attention() const { return inner_.attention(); }
  void set_policy(const policy& attention) { inner_.set_policy(attention); }

  // The inner engine: for attends with your own parallel policy, workspace or observer.
  const inner_type& inner() const { return inner_; }
  const drive_spec& drive() const { return drive_; }
  const Store& pages() const { return inner_.pages(); }  // for its counters

 private:
  static constexpr std::uint32_t element_bytes = Format::element_bytes;

  engine(const drive_spec& drive, const transfer::route_spec& route_times, const drive_rules& rules,
         const Arbitration& arbitration, inner_type&& inner)
      : drive_{drive},
        rules_{rules},
        arbitration_{arbitration},
        route_{with_link_of(drive, route_times)},
        inner_{std::move(inner)},
        placement_{drive.geometry},
        parts_{inner_.cache().tiles(), drive.geometry,
               rules.transfer == transfer_size::codeword ? element_bytes : 0},
        attends_{drive, rules, group(), element_bytes, arbitration},
        writes_{drive, rules, arbitration} {
    if constexpr (LocatingStore<Store>) {
      require(inner_.pages().shape() == drive.geometry, [&] {
        return "flash engine: the store's flash is " + to_string(inner_.pages().shape()) +
               ", the drive's " + to_string(drive.geometry);
      });
      inner_.translation().record_operations(true);
    }
  }

  // The receipt that f(receipt) fills. If it throws, the layers are put back; that takes no time.
  template <class F>
  receipt undone_on_failure(std::span<layer_before<typename inner_type::cache_type>> undo, F&& f) {
    try {
      receipt done;
      f(done);
      return done;
    } catch (...) {
      for (auto& before : undo) {
        before.put_back(inner_);
      }
      if constexpr (LocatingStore<Store>) {
        inner_.translation().clear_operations();
      }
      throw;
    }
  }

  traffic record(const request& r, int layer) {
    const std::size_t first = work_.pages.size();
    traffic moved = inner_
                        .attend(std::span(&r, 1), layer, scratch_, parallel::serial{},
                                attend_recorder{work_, group(), Format::k_dim, parts_})
                        .traffic;
    count_parts(moved, std::span(work_.pages).subspan(first), drive_.geometry,
                route::computes_in_drive);
    return moved;
  }

  std::uint32_t group() const { return static_cast<std::uint32_t>(inner_.cache().shape().group()); }

  // Without bytes there is no request, and so no latency.
  double route_ns(const transfer::link_bytes& moved) const {
    return moved.up + moved.down == 0 ? 0.0 : route::time(moved, route_).total_ns();
  }

  auto route_of_pages() const {
    return [this](const traffic& pages) { return route_ns(route::bytes(pages, 0, 0)); };
  }

  location locate(page_id page) const {
    if constexpr (LocatingStore<Store>) {
      return inner_.cache().pages().locate(page);
    } else {
      return placement_(page);
    }
  }
  void locate_work() {
    locations_.clear();
    for (const page_task& task : work_.pages) {
      locations_.push_back(task.page == no_page ? location{} : locate(task.page));
      if constexpr (LocatingStore<Store>) {
        if (task.page != no_page) {
          inner_.translation().count_read(task.page);
        }
      }
    }
  }

  // New K and V cross the link while earlier groups are programmed, so only the slower of the two
  // counts.
  receipt timed_write(const instinfer::receipt& written) {
    receipt done;
    done.traffic = written.traffic;
    if (!timed_) {
      if constexpr (LocatingStore<Store>) {
        inner_.translation().clear_operations();
      }
      return done;
    }
    charge_writes(done);
    const double flash_ns = done.flash_write_ns + done.moving_ns + done.erase_ns;
    const double link_ns = route_ns({.up = 0, .down = written.traffic.link_bytes});
    if (link_ns >= flash_ns) {
      done.link_ns = link_ns;
      done.flash_write_ns = done.moving_ns = done.erase_ns = 0;
    }
    writes_.pass(done.total_ns());
    return done;
  }

  void charge_writes(receipt& done) {
    if constexpr (LocatingStore<Store>) {
      charge_operations(done);
    } else {
      operations_.programs.clear();
      for (const page_id page : inner_.written()) {
        operations_.programs.push_back(placement_(page));
      }
      writes_.charge(operations_, done);
    }
  }
  receipt receipt_of_operations() {
    receipt done;
    charge_operations(done);
    return done;
  }
  void charge_operations(receipt& done) {
    writes_.charge(inner_.translation().operations(), done);
    inner_.translation().clear_operations();
  }

  drive_spec drive_;
  drive_rules rules_;
  Arbitration arbitration_;
  transfer::route_spec route_;
  inner_type inner_;
  placement placement_;
  wanted_codewords parts_;
  attend_clock<route::computes_in_drive, Arbitration> attends_;
  Writes<Arbitration> writes_;
  typename inner_type::scratch scratch_;
  std::vector<std::uint32_t> slots_;  // scratch of require_distinct()
  attend_work work_;
  std::vector<location> locations_;  // of the work
  bool timed_ = true;
  ftl_operations operations_;
};

}  // namespace instinfer::flash
