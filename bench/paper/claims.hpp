#pragma once
// The claims of InstInfer §VI (and its abstract) beside what this library's models give for them.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "instinfer/ssd/report/endurance.hpp"
#include "paper/runs.hpp"

namespace instinfer::paper {

// calibrated: a constant was set so that this number comes out. predicted: none was.
enum class kind { calibrated, predicted };

// The bar or point that a claim is about. `at` is a batch (Fig. 4, 14 to 17), a number of drives
// (Fig. 18 to 20a) or of years (Fig. 23).
struct place {
  std::string system = {};  // empty: no picture shows it
  double at = 0;
};

// reproduction.md.in says why a claim is off.
struct claim {
  std::string figure;
  std::string what;
  std::string unit;  // "x", "%", ...; "holds": an ordering, 1 where it is as claimed
  double paper = 0;
  double ours = 0;
  kind how = kind::predicted;
  place shown = {};

  double error() const { return paper == 0 ? ours : ours / paper - 1; }
  bool is_ordering() const { return unit == "holds" || unit == "batch"; }
};

// The five numbers that fix constants; the first four fix system::host_software, the last one is
// the flash presets'.
inline double best_over_best(const series& a, const series& b) {
  return a.best().tokens_per_s() / b.best().tokens_per_s();
}
inline double insta_over_flexgen(const panel& p) { return best_over_best(p.insta, p.flexgen); }
inline double insta_over_deepspeed(const panel& p) { return best_over_best(p.insta, p.deepspeed); }
inline double swapping_factor(const panel& p) {
  return p.deepspeed.tokens_per_s(16) / p.deepspeed.tokens_per_s(32);
}
inline double sparf_over_recomp(const panel& p) {
  return p.sparf.tokens_per_s(256) / p.recomp.tokens_per_s(256);
}
inline constexpr double paper_insta_over_flexgen = 11.1 / 2.08;
inline constexpr double paper_insta_over_deepspeed = 1.046;
inline constexpr double paper_swapping_factor = 32.6;
inline constexpr double paper_sparf_over_recomp = 1.713;

inline std::vector<claim> all_claims(const all_runs& runs) {
  const panel& one = runs.opt_13b;
  const panel& two = runs.two_drives;
  std::vector<claim> all;
  const auto predicted = [&](const char* figure, const char* what, const char* unit, double paper,
                             double ours, const place& shown = {}) {
    all.push_back({figure, what, unit, paper, ours, kind::predicted, shown});
  };
  const auto calibrated = [&](const char* figure, const char* what, const char* unit, double paper,
                              double ours, const place& shown = {}) {
    all.push_back({figure, what, unit, paper, ours, kind::calibrated, shown});
  };
  const auto holds = [&](const char* figure, const char* what, bool ours) {
    all.push_back({figure, what, "holds", 1, ours ? 1.0 : 0.0, kind::predicted, {}});
  };
  const auto batch = [&](const char* figure, const char* what, double paper, std::int64_t ours) {
    all.push_back({figure, what, "batch", paper, static_cast<double>(ours), kind::predicted, {}});
  };
  const auto share = [](const series& s) { return 100 * s.at(64).mean.time.kv_access_share(); };
  const auto best_batch = [](const series& s) { return static_cast<double>(s.best().job.batch); };

  predicted("abstract", "KV migration saved, InstA-SparF against FlexGen, batch 64", "%", 94.0,
            100 * (1 - one.sparf.at(64).mean.time.kv_access_s() /
                           one.flexgen.at(64).mean.time.kv_access_s()));
  predicted("§I", "KV cache of a token, OPT-13B", "MB", 0.78,
            system::opt_13b.kv_bytes_per_token() / (1024.0 * 1024.0));
  predicted("§I", "KV cache over weights, OPT-13B, batch 32, 4K tokens", "x", 4.2,
            32 * 4096 * system::opt_13b.kv_bytes_per_token() / system::opt_13b.weight_bytes());
  predicted("Fig. 4", "FlexGen's largest share of KV access", "%", 98.94, share(one.flexgen),
            {"FlexGen", 64});
  calibrated("Fig. 4", "DeepSpeed's loss from batch 16 to 32", "%", 97.01,
             100 * (1 - 1 / swapping_factor(one)));

  double over_sparq = 0;
  bool beats_windows = true;
  bool beats_h2o = true;
  for (const double of : {2.0, 4.0, 8.0, 16.0}) {
    const auto mass = [&](const char* method) {
      return runs.accuracy_of("trace", method, of).mass;
    };
    over_sparq += mass("SparF") / mass("SparQ") / 4;
    beats_windows =
        beats_windows && mass("SparF") > mass("StreamingLLM") && mass("SparF") > mass("window");
    beats_h2o = beats_h2o && mass("SparF") > mass("H2O");
  }
  predicted("Fig. 13",
            "attention that SparF keeps over SparQ, mean of 1/2 to 1/16, 4,096 tokens of a book "
            "(\"about equal\")",
            "x", 1.0, over_sparq);
  holds("Fig. 13",
        "SparF keeps more than StreamingLLM and a window, 1/2 to 1/16, 4,096 tokens of a book",
        beats_windows);
  holds("Fig. 13", "SparF keeps more than H2O, 1/2 to 1/16, 4,096 tokens of a book", beats_h2o);

  predicted("Fig. 14", "InstA over FlexGen, batch 64", "x", 6.85,
            one.insta.tokens_per_s(64) / one.flexgen.tokens_per_s(64), {"InstA", 64});
  calibrated("Fig. 14", "InstA's best over FlexGen's best (11.1 / 2.08)", "x",
             paper_insta_over_flexgen, insta_over_flexgen(one), {"InstA", best_batch(one.insta)});
  predicted("Fig. 14", "InstA-SparF over InstA, batch 256", "x", 2.08,
            one.sparf.tokens_per_s(256) / one.insta.tokens_per_s(256), {"InstA-SparF", 256});
  predicted("Fig. 14", "InstA-SparF's best over FlexGen's best", "x", 11.1,
            best_over_best(one.sparf, one.flexgen));
  calibrated("Fig. 14", "InstA's best over DeepSpeed's best", "x", paper_insta_over_deepspeed,
             insta_over_deepspeed(one));
  calibrated("Fig. 14", "DeepSpeed, batch 16 over batch 32", "x", paper_swapping_factor,
             swapping_factor(one), {"DeepSpeed", 16});
  calibrated("Fig. 14", "InstA-SparF over Recomp, batch 256", "x", paper_sparf_over_recomp,
             sparf_over_recomp(one));
  predicted("Fig. 14", "FlexGen-GDS over FlexGen, batch 64 (\"about equal\")", "x", 1.0,
            one.gds.tokens_per_s(64) / one.flexgen.tokens_per_s(64), {"FlexGen-GDS", 64});
  batch("Fig. 14", "largest batch that FlexGen fits", 64, one.flexgen.largest_that_fits());
  batch("Fig. 14", "DeepSpeed's best batch", 16, one.deepspeed.best().job.batch);
  batch("Fig. 14", "InstA-SparF's best batch", 256, one.sparf.best().job.batch);
  holds("Fig. 14", "Recomp leads all others at batch 4 and 8",
        one.recomp.at(4).tokens_per_s() > one.sparf.at(4).tokens_per_s() &&
            one.recomp.at(8).tokens_per_s() > one.sparf.at(8).tokens_per_s() &&
            one.recomp.at(4).tokens_per_s() > one.deepspeed.at(4).tokens_per_s());
  bool sparf_leads = true;
  for (const series* s : one.all()) {
    sparf_leads =
        sparf_leads && (s == &one.sparf || s->tokens_per_s(256) < one.sparf.tokens_per_s(256));
  }
  holds("Fig. 14", "InstA-SparF leads all others at batch 256", sparf_leads);

  predicted("Fig. 15", "FlexGen's best, two drives over one (\"barely gains\")", "x", 1.0,
            best_over_best(two.flexgen, one.flexgen), {"FlexGen", best_batch(two.flexgen)});
  predicted("Fig. 15", "FlexGen-SparQ's best, two drives over one (\"barely gains\")", "x", 1.0,
            best_over_best(two.sparq, one.sparq), {"FlexGen-SparQ", best_batch(two.sparq)});
  predicted("Fig. 15", "InstA, batch 256, over FlexGen's best", "x", 10.5,
            two.insta.tokens_per_s(256) / two.flexgen.best().tokens_per_s(), {"InstA", 256});
  predicted("Fig. 15", "InstA-SparF, batch 256, over FlexGen-SparQ's best", "x", 3.11,
            two.sparf.tokens_per_s(256) / two.sparq.best().tokens_per_s(), {"InstA-SparF", 256});
  batch("Fig. 15", "FlexGen's best batch", 32, two.flexgen.best().job.batch);
  batch("Fig. 15", "FlexGen-SparQ's best batch", 32, two.sparq.best().job.batch);

  predicted("Fig. 16", "OPT-30B: InstA, batch 128, over FlexGen's best", "x", 4.09,
            runs.opt_30b.insta.tokens_per_s(128) / runs.opt_30b.flexgen.best().tokens_per_s(),
            {"InstA", 128});
  predicted("Fig. 16", "OPT-30B: InstA-SparF, batch 128, over FlexGen's best", "x", 9.39,
            runs.opt_30b.sparf.tokens_per_s(128) / runs.opt_30b.flexgen.best().tokens_per_s(),
            {"InstA-SparF", 128});
  batch("Fig. 16", "FlexGen's best batch", 8, runs.opt_30b.flexgen.best().job.batch);

  const double llama_base = runs.llama2_13b.flexgen.best().tokens_per_s();
  predicted("Fig. 17", "Llama-2-13B: InstA, batch 128, over FlexGen's best", "x", 5.68,
            runs.llama2_13b.insta.tokens_per_s(128) / llama_base, {"InstA", 128});
  predicted("Fig. 17", "Llama-2-13B: InstA-SparF, batch 128, over FlexGen's best", "x", 12.48,
            runs.llama2_13b.sparf.tokens_per_s(128) / llama_base, {"InstA-SparF", 128});
  predicted("Fig. 17", "Llama-2-13B: Recomp, batch 128, over FlexGen's best", "x", 9.26,
            runs.llama2_13b.recomp.tokens_per_s(128) / llama_base, {"Recomp", 128});
  batch("Fig. 17", "FlexGen's best batch", 16, runs.llama2_13b.flexgen.best().job.batch);

  predicted("Fig. 18", "share of KV access, FlexGen", "%", 98.9, share(one.flexgen),
            {"FlexGen", 1});
  predicted("Fig. 18", "share of KV access, InstA", "%", 80.7, share(one.insta), {"InstA", 1});
  predicted("Fig. 18", "share of KV access, InstA, two drives", "%", 76.4, share(two.insta),
            {"InstA", 2});
  predicted("Fig. 19", "share of KV access, FlexGen-SparQ", "%", 92.4, share(one.sparq),
            {"FlexGen-SparQ", 1});
  predicted("Fig. 19", "share of KV access, InstA-SparF", "%", 82.3, share(one.sparf),
            {"InstA-SparF", 1});
  predicted("Fig. 19", "share of KV access, InstA-SparF, two drives", "%", 74.0, share(two.sparf),
            {"InstA-SparF", 2});

  const by_drives& single = runs.drives.front();
  const by_drives& many = runs.drives.back();
  predicted("Fig. 20a", "InstA, 20 drives over one, batch 256", "x", 8.99,
            many.dense.tokens_per_s() / single.dense.tokens_per_s(), {"InstA", 20});
  predicted("Fig. 20a", "InstA-SparF, 20 drives over one, batch 256", "x", 7.29,
            many.sparse.tokens_per_s() / single.sparse.tokens_per_s(), {"InstA-SparF", 20});
  bool rising = true;
  for (std::size_t i = 1; i < runs.compressions.size(); ++i) {
    rising = rising &&
             runs.compressions[i].run.tokens_per_s() > runs.compressions[i - 1].run.tokens_per_s();
  }
  holds("Fig. 20b", "throughput rises with compression, 1/2 to 1/32", rising);

  const double drive_share = one.insta.at(256).mean.time.kv_access_share();
  predicted("Fig. 22", "worst read retry costs InstA at most", "per mille", 4.7,
            1000 * runs.dense_retry * drive_share, {"InstA", 1});
  holds("Fig. 22", "read retry costs InstA-SparF less than InstA",
        runs.sparse_retry < runs.dense_retry);

  const double steps = 1024;
  const double layer_prompt = 64 * 1024 * system::opt_13b.kv_bytes_per_token_layer();
  predicted("Table III", "prefill write, a layer", "GB", 1.34, layer_prompt / 1e9);
  predicted("Table III", "prefill write rate", "GB/s", 3.78, runs.write_bytes_per_s / 1e9);
  predicted("Table III", "decode read, a layer, dense by arithmetic", "GB", 1085.65,
            one.insta.at(64).mean.bytes.kv_wanted / 40 * steps / 1e9);
  calibrated("Table III", "decode read rate", "GB/s", 7.66,
             runs.dense_layer.page_bytes / runs.dense_layer.flash_s / 1e9);
  predicted("Table III", "decode write, a layer, K twice", "GB", 1.93,
            layer_prompt * runs.sparse_footprint / 1e9);
  predicted("Table III", "decode write rate", "GB/s", 2.15, runs.write_bytes_per_s / 1e9);

  const flash::endurance worn = flash::paper_endurance;
  flash::endurance relaxed = worn;
  relaxed.retention_gain = 6.67;
  predicted("§VI-F", "tokens that four drives outlive", "thousand", 32'263'877,
            worn.lifetime_tokens() / 1e3);
  predicted("§VI-F", "gain of three weeks of retention", "x", 6.67,
            flash::three_weeks_retention_gain);
  predicted("§VI-F", "users, 128 K tokens a day, 5 years", "users", 920, relaxed.users(128'000, 5),
            {"three weeks", 5});
  predicted("§VI-F", "users, 128 K tokens a day, 3 years", "users", 1530, relaxed.users(128'000, 3),
            {"three weeks", 3});
  predicted("§VI-F", "users, 128 K tokens a day, 1 year", "users", 4600, relaxed.users(128'000, 1),
            {"three weeks", 1});
  return all;
}

// Median of the absolute relative errors of the predicted numbers; orderings count apart.
inline double median_error(const std::vector<claim>& claims) {
  std::vector<double> errors;
  for (const claim& c : claims) {
    if (c.how == kind::predicted && !c.is_ordering()) {
      errors.push_back(std::abs(c.error()));
    }
  }
  const auto middle = errors.begin() + static_cast<std::ptrdiff_t>(errors.size() / 2);
  std::ranges::nth_element(errors, middle);
  return *middle;
}

}  // namespace instinfer::paper
