#pragma once
// The heads of a batch as jobs, with their results until all are done.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <span>
#include <vector>

#include "instinfer/core/logit_rule.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/core/traffic.hpp"
#include "instinfer/core/work_split.hpp"
#include "instinfer/engine/attend_request.hpp"

namespace instinfer {

// The part of a workspace that is alike for all paths and formats.
struct attend_jobs {
  std::vector<head_job> jobs;
  std::vector<std::uint64_t> loads;        // scratch of deal()
  std::vector<std::uint32_t> slots;        // scratch of require_distinct()
  std::vector<traffic> traffic_of;         // [jobs]
  std::vector<std::exception_ptr> failed;  // [jobs]
  std::vector<std::exception_ptr> part_failures;
  std::vector<std::size_t> out_at;  // [requests], start of each in `out`
  std::vector<float> out;           // of all requests: outputs, then log_sum_exp

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
    out_size_ += r.out.size() + r.log_sum_exp.size();
    if (logits.window > 0) {
      tokens = std::min(tokens, std::uint64_t{logits.window} + logits.sinks);
    }
    if (r.visible != nullptr) {
      tokens = std::min(tokens, std::uint64_t{r.visible->count()});
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
  std::span<float> log_sum_exp_of(std::size_t job, const attend_request& r) {
    return std::span(out).subspan(out_at[jobs[job].request] + r.out.size(), r.log_sum_exp.size());
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
      const float* from = out.data() + out_at[r];
      std::copy_n(from, batch[r].out.size(), batch[r].out.begin());
      std::copy_n(from + batch[r].out.size(), batch[r].log_sum_exp.size(),
                  batch[r].log_sum_exp.begin());
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
