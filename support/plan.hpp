#pragma once
// Capacity planning: every allowed system on every number of drives that makes a difference, with
// its memory, speed, bottleneck, price, power and wear, and which to take.

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "instinfer/ssd/ftl/reliability.hpp"
#include "instinfer/ssd/report/endurance.hpp"
#include "instinfer/system.hpp"
#include "instinfer/system/memory_tier.hpp"
#include "instinfer/system/spec/prices.hpp"

namespace instinfer::plan {

// A drive preset by name, and its price with the engine and without.
struct named_drive {
  std::string_view name;
  flash::drive_spec spec;
  system::priced plain;
  system::priced computing;
  flash::drive_rules rules = flash::independent_planes;
};
inline constexpr named_drive drive_presets[] = {
    {"instcsd", flash::instcsd, system::ssd_pcie4, system::csd_pcie4},
    {"pcie5_16ch", flash::pcie5_16ch, system::ssd_pcie5, system::csd_pcie5},
    {"pcie4_ssd", flash::pcie4_ssd, system::ssd_pcie4, system::csd_pcie4},
    {"tlc_ssd", flash::tlc_ssd, system::ssd_pcie4, system::csd_pcie4}};

// GPU: the whole cache in GPU memory. Host: in host memory, by the best software there could be
// (memory_tier.hpp). Others: system/concepts.hpp.
inline constexpr std::string_view system_names[] = {"GPU",     "Host",        "DeepSpeed",
                                                    "FlexGen", "FlexGen-GDS", "FlexGen-SparQ",
                                                    "Recomp",  "InstA",       "InstA-SparF"};
constexpr bool has_drives(std::string_view system) {
  return system.starts_with("FlexGen") || system.starts_with("InstA");
}

struct request {
  system::model_spec model = system::opt_13b;
  system::workload job = system::paper_opt_workload(64);
  system::server on = system::paper_server();  // its drives and weights are for the plan to choose
  named_drive drive = drive_presets[0];
  int most_drives = 64;
  double host_bytes_per_s = 187.7e9;  // of host memory: 8 channels of DDR4-2933, the Xeon's most
  std::optional<double> usd = {};     // to buy
  std::optional<double> watts = {};   // at full power, without cooling
  std::vector<std::string> systems{std::begin(system_names), std::end(system_names)};
  system::running_costs running = {};
};

// P/E cycles: InstInfer §VI-F.
inline constexpr double pe_cycles = 3000;
// Mean over most erases of a block, since the first worn-out block counts. Measured on the FTL with
// kv_blocks after 100 cycles (tests/ssd/ftl/test_wear_levelling.cpp); later it is more even.
inline constexpr double wear_evenness = 0.85;
// What is simulated; a million tokens of one head are 131,072 pages.
inline constexpr std::int64_t longest_context = 4 << 20;

// Recomputing costs so many tokens a token as the paper's runs of up to 2,048 tokens say
// (host_spec.hpp); twice that is as far as the figure is taken.
inline constexpr std::int64_t longest_recomputed_context = 4'096;

enum class limit { none, memory, context, engine, calibration, usd, watts };

struct option {
  std::string system = {};
  int drives = 0;  // 0: it has none
  system::weights_at weights = system::weights_at::host;
  system::report run = {};
  system::bill bill = {};
  std::string bottleneck = {};       // the largest part of a step; of drives with what limits them
  double bottleneck_share = 0;       // of a step
  flash::attend_bounds bounds = {};  // of the drives in one layer of a step; 0 without drives
  double lifetime_years = std::numeric_limits<double>::infinity();  // of the drives, always busy
  // Programs per page that the host writes: the decode of a sequence reads its blocks so often that
  // their pages move (read disturb, reliability.hpp). Nothing else moves with kv_blocks.
  double write_amplification = 1;
  double usd_per_million_tokens = 0;  // price, energy, and drives that wear out in between
  limit fails = limit::none;
  std::string why = {};  // the limit that fails, by how much, and what would satisfy it
};

namespace detail {

inline std::string whole(double x) { return std::to_string(static_cast<long long>(std::ceil(x))); }

inline std::string remedy(const request& r, const option& o) {
  const system::memory_use& m = o.run.memory;
  switch (*m.overflows()) {
    case system::tier::gpu:
      return "; about " + whole(r.on.gpus * m.gpu.needed_bytes / m.gpu.available_bytes) +
             " such GPUs (--gpus), or a smaller batch or context, would do";
    case system::tier::host:
      return "; " + whole(m.host.needed_bytes / 1e9) + " GB of host memory (--host-gb) would do";
    case system::tier::drive:
      break;
  }
  return "; " + whole(o.drives * m.drive.needed_bytes / m.drive.available_bytes) +
         " drives (--max-drives) would do";
}

// The middle of the run.
inline double middle(const request& r) {
  return static_cast<double>(r.job.input_tokens) + static_cast<double>(r.job.output_tokens) / 2;
}

// A sequence stays for its output tokens. Each of them reads this share of its stored pages.
template <class S>
void wear(const request& r, int drive_count, const S& s, option& o) {
  const double stored = static_cast<double>(r.job.batch) * middle(r) *
                        r.model.kv_bytes_per_token() * s.kv().footprint();
  const double reads_per_page = s.step(middle(r)).bytes.flash_read / stored;
  if (reads_per_page > 0) {
    o.write_amplification = flash::write_amplification_of_reading(
        static_cast<double>(r.job.output_tokens), flash::common_read_limit,
        static_cast<std::uint32_t>(r.drive.spec.geometry.pages), reads_per_page);
  }
  const flash::endurance drives{.drives = static_cast<double>(drive_count),
                                .drive_bytes = static_cast<double>(r.drive.spec.geometry.bytes()),
                                .pe_cycles = pe_cycles,
                                .kv_bytes_per_token = r.model.kv_bytes_per_token(),
                                .footprint = s.kv().footprint(),
                                .write_amplification = o.write_amplification,
                                .wear_evenness = wear_evenness};
  const double tokens_per_s =
      static_cast<double>(r.job.batch * r.job.context_tokens()) / o.run.total_s();
  o.lifetime_years =
      drives.lifetime_tokens() / tokens_per_s / flash::memory_price::seconds_per_year;
}

// KV in the host's memory: what the tier needs is needed there.
inline void move_to_host(const request& r, option& o) {
  system::memory_use& m = o.run.memory;
  m.host.needed_bytes += m.drive.needed_bytes;
  m.host.available_bytes = r.on.host.memory_bytes;
  m.drive = {};
}

// Weights stay on the GPU where there is room beside what else the system needs there.
template <class S, class... More>
option try_system(const request& r, const std::string& name, int drive_count, const More&... more) {
  option o{.system = name, .drives = drive_count};
  system::server on = r.on;
  on.drives = std::max(1, drive_count);
  const auto run_with = [&](system::weights_at weights) {
    on.weights = weights;
    o.weights = weights;
    const S s(r.model, on, r.job, more...);
    o.run = system::run(s);
    if constexpr (std::same_as<S, system::recomp_system>) {
      const double resident = s.resident(static_cast<double>(r.job.context_tokens()));
      if (name == "GPU") {
        const double cache = static_cast<double>(r.job.batch * r.job.context_tokens()) *
                             r.model.kv_bytes_per_token();
        const double one =
            static_cast<double>(r.job.context_tokens()) * r.model.kv_bytes_per_token();
        o.run.memory.gpu.needed_bytes += cache - one;  // which has one sequence
      } else if (resident < static_cast<double>(r.job.batch) &&
                 r.job.context_tokens() > longest_recomputed_context) {
        o.fails = limit::calibration;
        o.why = "recomputing is calibrated for contexts up to " +
                std::to_string(longest_recomputed_context) + " tokens, this one has " +
                std::to_string(r.job.context_tokens()) + "; a batch of " +
                std::to_string(static_cast<std::int64_t>(resident)) +
                ", which stays on the GPU, would do";
      }
    }
    const system::step_part slowest = system::largest_part(o.run.mean.time);
    o.bottleneck = slowest.name;
    o.bottleneck_share = slowest.s / o.run.mean.time.total_s();
    if constexpr (requires { s.kv(); }) {
      o.bounds = s.kv().at(middle(r)).bounds;
      if (slowest.name == "drives") {
        o.bottleneck += ": " + s.kv().bottleneck(middle(r)).name;
      }
      wear(r, drive_count, s, o);
    }
    if constexpr (std::same_as<S, system::tier_system>) {
      move_to_host(r, o);
    }
  };
  const bool may_rest = r.model.weight_bytes() < on.gpu_memory_bytes();
  if (may_rest) {
    run_with(system::weights_at::gpu);
  }
  const bool makes_room = !may_rest || o.run.memory.overflows() == system::tier::gpu;
  if (makes_room && !std::same_as<S, system::recomp_system>) {
    run_with(system::weights_at::host);
  } else if (!may_rest) {
    run_with(system::weights_at::gpu);  // for its verdict
  }
  if (!o.run.fits()) {
    o.fails = limit::memory;
    o.why = o.run.memory.verdict() + remedy(r, o);
  }
  return o;
}

inline system::bill bill_of(const request& r, int drive_count, bool computing) {
  return system::bill{}
      .add(system::server_chassis)
      .add(system::price_of(r.on.gpu), r.on.gpus)
      .add(system::dram_64gb, r.on.host.memory_bytes / 64e9)
      .add(computing ? r.drive.computing : r.drive.plain, drive_count);
}

inline void price(const request& r, option& o) {
  const bool computing = o.system.starts_with("InstA");
  o.bill = bill_of(r, o.drives, computing);
  if (o.fails != limit::none) {
    return;
  }
  const double sets = std::max(1.0, r.running.service_years / o.lifetime_years);
  system::bill over_the_years = o.bill;
  over_the_years.usd += (sets - 1) * o.drives * (computing ? r.drive.computing : r.drive.plain).usd;
  o.usd_per_million_tokens = 1e6 / over_the_years.tokens_per_usd(o.run.tokens_per_s(), r.running);
  const auto over = [&](const char* unit, double needs, double has, const char* name) {
    return std::string("costs ") + whole(needs) + " " + unit + ", " + whole(needs - has) +
           " over the budget; " + name + " " + whole(needs) + " would do";
  };
  if (r.usd && o.bill.usd > *r.usd) {
    o.fails = limit::usd;
    o.why = over("dollars", o.bill.usd, *r.usd, "--dollars");
  } else if (r.watts && o.bill.watts > *r.watts) {
    o.fails = limit::watts;
    o.why = over("watts", o.bill.watts, *r.watts, "--watts");
  }
}

inline option run_one(const request& r, const std::string& name, int drives) {
  const flash::drive_spec& drive = r.drive.spec;
  if (name.starts_with("InstA") && !drive.units.present()) {
    return {.system = name,
            .drives = drives,
            .fails = limit::engine,
            .why = "drive " + std::string(r.drive.name) +
                   " has no attention engine; --drive instcsd or pcie5_16ch would do"};
  }
  if (r.job.context_tokens() > longest_context) {
    return {.system = name,
            .drives = drives,
            .fails = limit::context,
            .why = "a context of " + std::to_string(r.job.context_tokens()) + " tokens is " +
                   std::to_string(r.job.context_tokens() - longest_context) +
                   " beyond what is simulated; " + std::to_string(longest_context) + " would do"};
  }
  constexpr auto prompts = system::prompts::one_by_one;
  if (name == "GPU" || name == "Recomp") {
    return try_system<system::recomp_system>(r, name, 0);
  }
  if (name == "Host") {
    return try_system<system::tier_system>(
        r, name, 0, system::memory_tier{"host memory", r.on.host.memory_bytes, r.host_bytes_per_s});
  }
  if (name == "DeepSpeed") {
    return try_system<system::deepspeed_system>(r, name, 0);
  }
  if (name == "FlexGen") {
    return try_system<system::flexgen_system<>>(r, name, drives, attention::dense{}, drive, prompts,
                                                r.drive.rules);
  }
  if (name == "FlexGen-GDS") {
    return try_system<system::flexgen_gds_system<>>(r, name, drives, attention::dense{}, drive,
                                                    prompts, r.drive.rules);
  }
  if (name == "FlexGen-SparQ") {
    return try_system<system::flexgen_sparq_system<>>(r, name, drives, attention::sparq{}, drive,
                                                      prompts, r.drive.rules);
  }
  if (name == "InstA") {
    return try_system<system::insta_system<>>(r, name, drives, attention::dense{}, drive,
                                              r.drive.rules);
  }
  require(name == "InstA-SparF", [&] {
    std::string known;
    for (const std::string_view s : system_names) {
      known += (known.empty() ? "" : ", ") + std::string(s);
    }
    return "no system is called " + name + "; there are " + known;
  });
  return try_system<system::insta_sparf_system<>>(r, name, drives, attention::sparf{}, drive,
                                                  r.drive.rules);
}

// Numbers of drives up to the most. With numbers in between the busiest drive has as much work as
// with the next lower one: heads split first, then sequences (drive_split.hpp). Powers of two are
// added for the links, and the most itself.
inline std::set<int> drive_counts(const request& r) {
  std::set<int> counts{r.most_drives};
  for (int n = 1; n <= r.most_drives; n *= 2) {
    counts.insert(n);
  }
  const int heads = r.model.shape.kv_heads;
  for (int heads_a_drive = 1; heads_a_drive <= heads; ++heads_a_drive) {
    counts.insert((heads + heads_a_drive - 1) / heads_a_drive);
  }
  for (std::int64_t a_drive = 1; a_drive <= r.job.batch; ++a_drive) {
    const std::int64_t parts = (r.job.batch + a_drive - 1) / a_drive;
    if (parts * heads <= r.most_drives) {
      counts.insert(static_cast<int>(parts * heads));
    }
  }
  counts.erase(counts.upper_bound(r.most_drives), counts.end());
  return counts;
}

// The least number of drives that holds what did not fit on one, if it is allowed.
inline std::optional<int> drives_that_hold(const request& r, const option& on_one) {
  const system::tier_use& use = on_one.run.memory.drive;
  const double needed =
      use.available_bytes > 0 ? std::ceil(use.needed_bytes / use.available_bytes) : 1.0;
  return needed > 1 && needed <= r.most_drives ? std::optional<int>{static_cast<int>(needed)}
                                               : std::nullopt;
}

}  // namespace detail

// Every option, those that fail too. Throws bad_argument for a request that means nothing.
inline std::vector<option> options(const request& r) {
  r.model.validate();
  r.job.validate();
  r.on.validate();
  require(r.most_drives > 0 && !r.systems.empty(),
          [] { return std::string("plan: at least one drive and one system must be allowed"); });
  for (const std::optional<double>& budget : {r.usd, r.watts}) {
    require(!budget || *budget >= 0,
            [&] { return "plan: a budget must be 0 or more, got " + std::to_string(*budget); });
  }
  std::vector<option> all;
  for (const std::string& name : r.systems) {
    std::set<int> counts = has_drives(name) ? detail::drive_counts(r) : std::set<int>{0};
    for (auto drives = counts.begin(); drives != counts.end(); ++drives) {
      all.push_back(detail::run_one(r, name, *drives));
      detail::price(r, all.back());
      if (const auto more = detail::drives_that_hold(r, all.back()); more && *drives == 1) {
        counts.insert(*more);
      }
    }
  }
  return all;
}

// The fastest option within the budget; without a budget the cheapest by the token. None if every
// option fails.
inline std::optional<option> best(const request& r, const std::vector<option>& all) {
  std::optional<option> found;
  const bool budget = r.usd || r.watts;
  for (const option& o : all) {
    if (o.fails == limit::none &&
        (!found || (budget ? o.run.tokens_per_s() > found->run.tokens_per_s()
                           : o.usd_per_million_tokens < found->usd_per_million_tokens))) {
      found = o;
    }
  }
  return found;
}

// Of each system that fails on any number of drives, the option that comes closest: cheapest of
// those that fit memory, else the one of the most drives.
inline std::vector<option> closest_failures(const std::vector<option>& all) {
  std::vector<option> closest;
  for (const std::string_view name : system_names) {
    const option* nearest = nullptr;
    bool works = false;
    for (const option& o : all) {
      if (o.system != name) {
        continue;
      }
      works = works || o.fails == limit::none;
      const auto in_budget_only = [](const option& x) {
        return x.fails == limit::usd || x.fails == limit::watts;
      };
      if (nearest == nullptr || !in_budget_only(*nearest)) {
        nearest = &o;
      }
    }
    if (nearest != nullptr && !works) {
      closest.push_back(*nearest);
    }
  }
  return closest;
}

}  // namespace instinfer::plan
