#pragma once
// Engines over a drive: appends of a prompt, and attends to it, which are also timed on the model.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <instinfer/cpu.hpp>
#include <instinfer/drive.hpp>

#include "drive/calibration.hpp"
#include "drive/request_model.hpp"
#include "instinfer/layout/fused.hpp"
#include "instinfer/methods/quest.hpp"
#include "instinfer/methods/retro_infer.hpp"
#include "support/workload.hpp"
#include "worker_pool.hpp"

namespace instinfer::bench {

using attend_format = kv_format<fp16, 128>;
inline constexpr std::uint32_t attend_tokens = 32768;
inline constexpr model_shape attend_shape{.layers = 1, .q_heads = 8, .kv_heads = 8};

constexpr flash::drive_spec with_pages_of(std::uint32_t page_bytes) {
  flash::drive_spec drive = flash::pcie4_ssd;
  drive.geometry.page_bytes = static_cast<std::int32_t>(page_bytes);
  return drive;
}

template <class Policy, class Layout>
using attend_design =
    design<Policy, Layout, with_pages_of(Layout::page_bytes), transfer::host_bounce>;
template <class Policy, class Layout>
using attend_engine =
    engine<attend_design<Policy, Layout>, attend_format, cpu::path, store::drive_files>;

// Tokens on 8 topics in runs of 24 on average; each query asks for one topic, so for an eighth of
// the tokens. All heads have the same keys and values, and queries of their own.
inline const workload::sample& attend_data() {
  static const workload::sample data = workload::topics{
      .tokens = static_cast<int>(attend_tokens), .dim = 128, .topic_count = 8, .queries = 8}();
  return data;
}

inline std::vector<fp16> rows_of_all_heads(const std::vector<float>& x) {
  std::vector<fp16> rows;
  rows.reserve(x.size() * 8);
  for (std::size_t t = 0; t < attend_tokens; ++t) {
    for (int head = 0; head < 8; ++head) {
      for (std::size_t i = 0; i < 128; ++i) {
        rows.push_back(from_float<fp16>(x[t * 128 + i]));
      }
    }
  }
  return rows;
}

// A channel for each folder: pages that are read together are neighbours in a file. Every page was
// written once.
inline store::drive_files pages_for(const std::vector<std::string>& folders, std::uint64_t bytes,
                                    std::uint32_t page_bytes, std::size_t readers) {
  const auto channels = static_cast<std::uint32_t>(folders.size());
  store::drive_files pages({.folders = folders, .readers = static_cast<unsigned>(readers)},
                           channels, bytes / channels / page_bytes + 1, page_bytes);
  write_all(pages);
  return pages;
}

inline constexpr std::uint64_t dense_bytes =
    std::uint64_t{attend_tokens} * 8 * attend_format::token_bytes;

template <class Policy, class Layout>
class append_case {
 public:
  explicit append_case(const std::vector<std::string>& folders)
      : engine_{attend_shape,
                {.bytes = dense_bytes + (16 << 20), .context_tokens = attend_tokens},
                pages_for(folders, dense_bytes + (16 << 20), Layout::page_bytes, 1)},
        k_{rows_of_all_heads(attend_data().k)},
        v_{rows_of_all_heads(attend_data().v)} {}

  // The newest pages, at most 4 MiB, may still be in memory. They are dropped, and not counted.
  void append() {
    const sequence seq = engine_.open();
    engine_.append(seq, 0, k_, v_);
    engine_.reclaim(seq);
  }
  const store::drive_files& pages() const { return engine_.pages(); }

 private:
  attend_engine<Policy, Layout> engine_;
  std::vector<fp16> k_;
  std::vector<fp16> v_;
};

template <class Policy, class Layout>
class attend_case {
 public:
  using engine_type = attend_engine<Policy, Layout>;
  static constexpr std::uint32_t page_bytes = Layout::page_bytes;

  attend_case(const std::vector<std::string>& folders, const Policy& policy, std::size_t workers)
      : engine_{make(folders, policy, workers)}, seq_{engine_->open()}, pool_{workers} {
    const workload::sample& data = attend_data();
    q_ = data.q;
    out_.resize(q_.size());
    append();
    if constexpr (requires { engine_->build(seq_, 0); }) {
      engine_->build(seq_, 0);
    }
  }

  // The tokens of the sequence, a prompt at once.
  void append() {
    const std::vector<fp16> k = rows_of_all_heads(attend_data().k);
    const std::vector<fp16> v = rows_of_all_heads(attend_data().v);
    engine_->append(seq_, 0, k, v);
  }
  void attend() { engine_->attend(seq_, 0, q_, out_, work_, pool_); }
  // The requests of an attend.
  std::vector<std::vector<store_request>> requests() {
    read_recorder reads(attend_shape.kv_heads);
    engine_->attend(seq_, 0, q_, out_, work_, parallel::serial{}, reads);
    return requests_of(reads, pages().channels(), page_bytes);
  }

  const store::drive_files& pages() const { return engine_->pages(); }

 private:
  static std::unique_ptr<engine_type> make(const std::vector<std::string>& folders,
                                           const Policy& policy, std::size_t workers) {
    // Twice the dense bytes: K may be stored twice, and a build needs both orders for a moment.
    constexpr std::uint64_t bytes = 2 * dense_bytes;
    return std::make_unique<engine_type>(
        attend_shape, store::capacity{.bytes = bytes, .context_tokens = attend_tokens},
        pages_for(folders, bytes, page_bytes, workers), policy);
  }

  std::unique_ptr<engine_type> engine_;
  sequence seq_;
  worker_pool pool_;
  std::vector<float> q_;
  std::vector<float> out_;
  typename engine_type::scratch work_;
};

}  // namespace instinfer::bench
