#pragma once
// How kernels read a head's planned pages: from any page store, or from the group buffer.

#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/layout/head_pages.hpp"

namespace instinfer::layout {

enum class read_streams : std::uint8_t { all, keys, values };

// The order in which a kernel asks for pages: reads [first, last) of a plan, those of some streams.
struct read_order {
  std::size_t first = 0;
  std::size_t last = 0;
  // A kernel uses a read until it asks for the one that is so many reads later in the plan.
  std::size_t in_use = 1;
  read_streams of = read_streams::all;

  bool has(stream kind) const {
    return of == read_streams::all || (kind == stream::v_by_token) == (of == read_streams::values);
  }
};

// The pages of a plan on their way from a store that has to fetch them (store/pages/concepts.hpp).
class planned_reads {
 public:
  // The bytes of a read of the plan. Throws what the store throws if the page cannot be read.
  virtual const std::byte* at(const page_read& read) = 0;
  virtual void close() noexcept = 0;

 protected:
  ~planned_reads() = default;
};

// A page store to read from, without the store's type: machines and kernels are compiled once for
// all stores. A read costs one indirect call, about 1 ns of the 100 ns or more that the rows of a
// page take. The store must outlive it.
class page_source {
 public:
  // A store without data (Store::holds_data is false) has no pages to read.
  template <class Store>
    requires requires { Store::holds_data; }
  page_source(const Store& store) : store_{&store} {
    if constexpr (Store::holds_data) {
      view_ = [](const void* from, const page_read& read) {
        return static_cast<const Store*>(from)->view(read.page).data();
      };
      if constexpr (requires(const access_plan& plan) { store.read_ahead(plan, read_order{}); }) {
        open_ = [](const void* from, const access_plan& plan,
                   const read_order& order) -> planned_reads* {
          return static_cast<const Store*>(from)->read_ahead(plan, order);
        };
      }
    }
  }
  explicit page_source(planned_reads& reads)
      : store_{&reads}, view_{[](const void* from, const page_read& read) {
          return static_cast<planned_reads*>(const_cast<void*>(from))->at(read);
        }} {}

  bool holds_data() const { return view_ != nullptr; }
  const std::byte* operator()(const page_read& read) const { return view_(store_, read); }
  const std::byte* operator()(page_id page) const {
    page_read read;
    read.page = page;
    return view_(store_, read);
  }

  // Whether the store fetches pages, and is to be told before which ones.
  bool fetches() const { return open_ != nullptr; }
  planned_reads* open(const access_plan& plan, const read_order& order) const {
    return open_(store_, plan, order);
  }

 private:
  const void* store_;
  const std::byte* (*view_)(const void*, const page_read&) = nullptr;
  planned_reads* (*open_)(const void*, const access_plan&, const read_order&) = nullptr;
};

// Gives the elements of a planned page of one head.
template <class Format>
class page_reader {
 public:
  class in_order;

  page_reader(page_source source, const head_pages& head) : source_{source}, head_{head} {}

  view_of<Format> operator()(const page_read& read) const {
    const stream_pages& from = head_.of(read.kind);
    const std::byte* bytes =
        read.buffered ? from.open + std::size_t{read.dim_tile} * from.open_bytes : source_(read);
    return make_view<Format>(bytes, read.buffered ? from.open_tile : head_.tiles.of(read.kind),
                             head_.fill(read.kind, read.token_tile), head_.page_bytes,
                             read.buffered, read.kind);
  }

  // Tokens of a page of a stream.
  std::uint32_t tile_tokens(stream s) const { return head_.tiles.of(s).tokens; }

  // The reader for a kernel that asks for reads [first, last) of a plan in their order. in_use()
  // gives read_order::in_use; it is called only if the store fetches pages. Stores in memory have
  // nothing to prepare.
  template <class InUse>
  in_order ahead(const access_plan& plan, std::size_t first, std::size_t last, InUse&& in_use,
                 read_streams of = read_streams::all) const {
    return source_.fetches() ? in_order(source_.open(plan, {first, last, in_use(), of}), *this)
                             : in_order(nullptr, *this);
  }
  // For a kernel that has finished with a page when it asks for the next one.
  in_order ahead(const access_plan& plan, read_streams of = read_streams::all) const {
    return ahead(plan, 0, plan.reads().size(), [] { return std::size_t{1}; }, of);
  }

 private:
  page_source source_;
  const head_pages& head_;
};

template <class Format>
class page_reader<Format>::in_order : public page_reader<Format> {
 public:
  in_order(planned_reads* reads, const page_reader& from)
      : page_reader{reads != nullptr ? page_source{*reads} : from.source_, from.head_},
        reads_{reads} {}
  in_order(const in_order&) = delete;
  in_order& operator=(const in_order&) = delete;
  ~in_order() {
    if (reads_ != nullptr) {
      reads_->close();
    }
  }

 private:
  planned_reads* reads_;
};

}  // namespace instinfer::layout
