#pragma once
// The heads of a batch as jobs, with their results until all are done.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <span>
#include <vector>

#include "instinfer/core/logit_rule.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/core/traffic.hpp"
#include "instinfer/core/work_split.hpp"
#include "instinfer/summaries/index_query.hpp"

namespace instinfer {

// One sequence of a batch and the queries of its newest tokens, oldest first. Tokens are appended
// before they attend. Each query sees the tokens up to its own: causal, also among the queries of
// one call.
struct attend_request {
  sequence seq;
  std::span<const float> q;        // [queries, q_heads, k_dim]
  std::span<float> out;            // [queries, q_heads, v_dim]
  attention::index_query index{};  // for policies with a trained indexer; one query per call
};

// The part of a workspace that is alike for all paths and formats.
struct attend_jobs {
  std::vector<head_job> jobs;
  std::vector<std::uint64_t> loads;        // scratch of deal()
  std::vector<traffic> traffic_of;         // [jobs]
  std::vector<std::exception_ptr> failed;  // [jobs]
  std::vector<std::exception_ptr> part_failures;
  std::vector<std::size_t> out_at;  // [requests], start of each in `out`
  std::vector<float> out;           // of all requests

  void clear_jobs() {
    jobs.clear();
    out_at.clear();
    out_size_ = 0;
  }

  // Lists the heads of the next request of the batch, over `tokens` live tokens.
  void add_heads(const attend_request& r, int kv_heads, std::uint64_t tokens,
                 std::uint64_t token_bytes, const logit_rule& logits) {
    const auto request = static_cast<std::uint32_t>(out_at.size());
    out_at.push_back(out_size_);
    out_size_ += r.out.size();
    if (logits.window > 0) {
      tokens = std::min(tokens, std::uint64_t{logits.window} + logits.sinks);
    }
    for (std::uint32_t h = 0; h < static_cast<std::uint32_t>(kv_heads); ++h) {
      jobs.push_back({request, h, tokens * token_bytes});
    }
  }

  // All heads are listed.
  void make_room() {
    traffic_of.assign(jobs.size(), {});
    failed.assign(jobs.size(), nullptr);
    resize_scratch(out, out_size_);
  }

  std::span<float> out_of(std::size_t job, const attend_request& r) {
    return std::span(out).subspan(out_at[jobs[job].request], r.out.size());
  }

  // Rethrows the exception of the first job that failed. Otherwise writes the outputs and returns
  // the traffic of all jobs.
  traffic finish(std::span<const attend_request> batch) const {
    for (const std::exception_ptr& failure : failed) {
      if (failure) {
        std::rethrow_exception(failure);
      }
    }
    for (std::size_t r = 0; r < batch.size(); ++r) {
      std::copy_n(out.begin() + static_cast<std::ptrdiff_t>(out_at[r]), batch[r].out.size(),
                  batch[r].out.begin());
    }
    traffic moved;
    for (const traffic& head : traffic_of) {
      moved += head;
    }
    return moved;
  }

 private:
  std::size_t out_size_ = 0;
};

}  // namespace instinfer
