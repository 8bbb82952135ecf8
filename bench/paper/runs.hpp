#pragma once
// The runs behind InstInfer's evaluation: every system of §VI-A over the batches of Fig. 14 to 17,
// and the sweeps of Fig. 20.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/system.hpp"
#include "instinfer/system/retry_cost.hpp"
#include "paper/accuracy.hpp"

namespace instinfer::paper {

using system::model_spec;
using system::report;
using system::server;
using system::workload;

// One system over batches.
struct series {
  std::string system;
  std::vector<report> runs;

  // Throws bad_argument if there was no such run.
  const report& at(std::int64_t batch) const {
    const auto run = std::ranges::find(runs, batch, [](const report& r) { return r.job.batch; });
    require(run != runs.end(),
            [&] { return system + " was not run at batch " + std::to_string(batch); });
    return *run;
  }
  double tokens_per_s(std::int64_t batch) const { return at(batch).tokens_per_s(); }
  const report& best() const {
    return *std::ranges::max_element(runs, {}, [](const report& r) { return r.tokens_per_s(); });
  }
  std::int64_t largest_that_fits() const {
    std::int64_t batch = 0;
    for (const report& r : runs) {
      batch = r.fits() ? std::max(batch, r.job.batch) : batch;
    }
    return batch;
  }
};

// All systems on one model and machine.
struct panel {
  std::string figure;
  std::string title;
  series deepspeed, flexgen, gds, sparq, recomp, insta, sparf;

  std::vector<const series*> all() const {
    return {&deepspeed, &flexgen, &gds, &sparq, &recomp, &insta, &sparf};
  }
};

inline const std::vector<std::int64_t> batches{4, 8, 16, 32, 64, 128, 256};

template <class S>
series sweep(const model_spec& model, const server& on, std::int64_t tokens,
             const std::vector<std::int64_t>& over) {
  series all{std::string(S::name), {}};
  for (const std::int64_t batch : over) {
    all.runs.push_back(system::run(S(model, on, workload{batch, tokens, tokens})));
  }
  return all;
}

inline panel run_panel(std::string figure, std::string title, const model_spec& model,
                       const server& on, std::int64_t tokens,
                       const std::vector<std::int64_t>& over = batches) {
  return {std::move(figure),
          std::move(title),
          sweep<system::deepspeed_system>(model, on, tokens, over),
          sweep<system::flexgen_system<>>(model, on, tokens, over),
          sweep<system::flexgen_gds_system<>>(model, on, tokens, over),
          sweep<system::flexgen_sparq_system<>>(model, on, tokens, over),
          sweep<system::recomp_system>(model, on, tokens, over),
          sweep<system::insta_system<>>(model, on, tokens, over),
          sweep<system::insta_sparf_system<>>(model, on, tokens, over)};
}

struct by_drives {
  int drives = 1;
  report dense;
  report sparse;
};
struct by_compression {
  double compression = 1;
  report run;
};

struct all_runs {
  panel opt_13b, two_drives, opt_30b, llama2_13b;
  std::vector<by_drives> drives;             // Fig. 20a, batch 256
  std::vector<by_compression> compressions;  // Fig. 20b, batch 64
  // One layer of OPT-13B, 64 sequences, in the middle of the run: by resource of the drive (Fig.
  // 21), and Table III.
  system::kv_load dense_layer, sparse_layer;
  system::kv_load llama_layer;  // SparF on Llama-2-13B, likewise
  double write_bytes_per_s = 0;
  double sparse_footprint = 1;
  // Fig. 22: what retries add to the flash time of such a layer, of 16 sequences.
  double dense_retry = 0;
  double sparse_retry = 0;
  std::vector<accuracy> accuracies = {};  // Fig. 13

  const accuracy& accuracy_of(const std::string& workload, const std::string& method,
                              double compression) const {
    return *std::ranges::find_if(accuracies, [&](const accuracy& a) {
      return a.workload == workload && a.method == method && a.compression == compression;
    });
  }
};

// 5 to 10 seconds on one core.
inline all_runs run_everything(const system::host_software& software = {}) {
  const auto with = [&](server m) {
    m.host.software = software;
    return m;
  };
  const server one = with(system::paper_server());
  all_runs all{run_panel("Fig. 14", "OPT-13B, one drive", system::opt_13b, one, 1024),
               run_panel("Fig. 15", "OPT-13B, two drives", system::opt_13b,
                         with(system::paper_server(2)), 1024),
               run_panel("Fig. 16", "OPT-30B, two GPUs, one drive", system::opt_30b,
                         with(system::paper_server(1, 2)), 1024, {4, 8, 16, 32, 64, 128}),
               run_panel("Fig. 17", "Llama-2-13B, one drive", system::llama2_13b, one, 2048,
                         {4, 8, 16, 32, 64, 128}),
               {},
               {},
               {},
               {},
               {},
               0,
               1,
               0,
               0};
  for (const int drives : {1, 2, 4, 8, 12, 16, 20}) {
    const server on = with(system::paper_server(drives));
    const workload job = system::paper_opt_workload(256);
    all.drives.push_back({drives, system::run(system::insta_system<>(system::opt_13b, on, job)),
                          system::run(system::insta_sparf_system<>(system::opt_13b, on, job))});
  }
  for (const double compression : {2.0, 4.0, 8.0, 16.0, 32.0}) {
    all.compressions.push_back(
        {compression, system::run(system::insta_sparf_system<>(
                          system::opt_13b, one, system::paper_opt_workload(64),
                          attention::sparf::as_published(compression)))});
  }
  const system::insta_system<> dense(system::opt_13b, one, system::paper_opt_workload(64));
  const system::insta_sparf_system<> sparse(system::opt_13b, one, system::paper_opt_workload(64));
  all.dense_layer = dense.kv().at(1536);
  all.sparse_layer = sparse.kv().at(1536);
  all.llama_layer =
      system::kv_access<insta_sparf>(system::llama2_13b, system::paper_llama_workload(64), 1)
          .at(3072);
  all.write_bytes_per_s = dense.kv().write_bytes_per_s();
  all.sparse_footprint = sparse.kv().footprint();
  const model_shape heads{.layers = 1, .q_heads = 40, .kv_heads = 40};
  all.dense_retry = system::read_retry_increase<insta>(heads, 16, 1536, flash::worst_read_retry);
  all.sparse_retry =
      system::read_retry_increase<insta_sparf>(heads, 16, 1536, flash::worst_read_retry);
  all.accuracies = measure_accuracy();
  return all;
}

}  // namespace instinfer::paper
