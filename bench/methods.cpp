// Selection methods side by side: error, attention mass, bytes by stage, modelled drive time, at budgets 1/2 to 1/32.

#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>

#include <nlohmann/json.hpp>

#include "instinfer/attention/threshold_calibration.hpp"
#include "instinfer/layout/dual.hpp"
#include "methods/measure.hpp"
#include "methods/plot.hpp"

namespace {

using namespace instinfer;
using methods::decode_case;
using methods::exact_answers;
using methods::measurement;

constexpr double budgets[] = {1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32};

// What a budget b means for each method: the share of K and V that it attends to exactly, or the closest that its settings allow.
template <int HeadDim>
class comparison {
 public:
  comparison(const decode_case& c, std::vector<measurement>& results)
      : case_{c}, exact_{methods::solve(c)}, results_{results} {}

  void run() const {
    using namespace attention;
    const double n = static_cast<double>(case_.tokens);
    const auto share = [&](double b) { return static_cast<std::uint32_t>(std::ceil(b * n)); };
    at("dense", 1.0, dense{});
    for (const double b : budgets) {
      at("streaming_llm", b, streaming_llm{.window = budget::at_most(share(b) - 4)});
      at("h2o", b, h2o{.heavy = share(b / 2), .recent = share(b / 2)});
      at("hgca", b, hgca{.window = share(3 * b / 4)});
      at("top_values", b, top_values{.keep_values = b});
      at<layout::dual<>>("sparq", b, sparq::at_compression(1 / b));
      at<layout::dual<>>("sparf", b, sparf::at_compression(1 / b));
      at("quest", b, quest{.keep_pages = b, .dense_layers = 0});
      at("squeezed", b, calibrated(b));
      at("retro_infer", b, retro_infer{.retrieved = b, .estimated = std::min(0.232, 1 - b)});
      at("dsa", b, basic_dsa<HeadDim>{.keep_tokens = b});
      at("misa", b, basic_misa<HeadDim>{.keep_tokens = b, .active_heads = 0.5});
    }
  }

 private:
  template <class Layout = layout::token_indexed<>, class Policy>
  void at(const char* method, double b, const Policy& policy) const {
    const methods::bench<Policy, Layout, HeadDim> bench(case_, exact_);
    const auto build = [&](auto& engine, sequence seq) {
      if constexpr (requires { engine.build(seq, 0); }) {
        for (std::size_t l = 0; l < case_.layers.size(); ++l) {
          engine.build(seq, static_cast<int>(l));
        }
      }
    };
    results_.push_back(bench(method, b, policy, build));
  }

  // A threshold that leaves out 1 - b of the clustered tokens, from the queries before the measured ones.
  attention::squeezed calibrated(double b) const {
    using attention::squeezed;
    using format = kv_format<fp16, HeadDim>;
    squeezed policy;
    if (!index_) {
      index_ = std::make_unique<index_engine>(
          model_shape{.layers = static_cast<int>(case_.layers.size()),
                      .q_heads = static_cast<int>(case_.q_heads),
                      .kv_heads = static_cast<int>(case_.kv_heads)},
          store::capacity{.bytes = std::uint64_t{256} << 20}, policy);
      const sequence seq = index_->open();
      const std::size_t values = case_.prompt() * case_.kv_heads * case_.head_dim;
      for (std::size_t l = 0; l < case_.layers.size(); ++l) {
        const auto layer = static_cast<int>(l);
        index_->append(seq, layer, std::span(case_.layers[l].k).first(values),
                       std::span(case_.layers[l].v).first(values));
        index_->build(seq, layer);
        for (std::size_t h = 0; h < case_.q_heads; ++h) {
          std::vector<float> queries;  // [queries before the measured ones, head_dim] of one head
          for (std::size_t i = 0; i < case_.first_measured(); ++i) {
            const auto q = case_.query(l, i).subspan(h * case_.head_dim, case_.head_dim);
            queries.insert(queries.end(), q.begin(), q.end());
          }
          const auto& states = index_->cache().at(seq, layer).summaries(
              static_cast<std::uint32_t>(h * case_.kv_heads / case_.q_heads));
          calibration_.add(std::get<attention::cluster_index::state<format>>(states), queries);
        }
      }
    }
    policy.threshold = calibration_.threshold(1 - b);
    return policy;
  }

  using index_engine =
      cpu::engine<design<attention::squeezed, layout::token_indexed<>, flash::instcsd,
                         transfer::in_storage>,
                  kv_format<fp16, HeadDim>>;
  const decode_case& case_;
  exact_answers exact_;
  std::vector<measurement>& results_;
  mutable std::unique_ptr<index_engine> index_;
  mutable attention::threshold_calibration calibration_;
};

void compare(const decode_case& c, std::vector<measurement>& results) {
  std::fprintf(stderr, "%s ...\n", c.name.c_str());
  switch (c.head_dim) {
    case 64:
      return comparison<64>(c, results).run();
    case 128:
      return comparison<128>(c, results).run();
    default:
      throw bad_argument("bench methods: traces with head size 64 or 128 can be compared, this one has " +
                         std::to_string(c.head_dim));
  }
}

void print(const std::vector<measurement>& results) {
  std::string workload;
  for (const measurement& m : results) {
    if (m.workload != workload) {
      workload = m.workload;
      std::printf("\n%s: means over layers and queries, bytes of one layer's attention call\n", workload.c_str());
      std::printf("%-14s %6s %9s %6s %6s %9s %9s %9s %8s %6s %9s %9s %8s\n", "method", "budget",
                  "error", "mass", "worst", "flash KB", "filter KB", "fast KB", "summ KB", "pages",
                  "resid KB", "drive us", "cpu us");
    }
    std::printf("%-14s   1/%-3.0f %9.2e %6.3f %6.3f %9.1f %9.1f %9.1f %8.1f %6.0f %9.1f %9.1f %8.1f\n",
                m.method.c_str(), 1 / m.budget, m.rel_error, m.mass_mean, m.mass_min,
                m.bytes_flash / 1e3, m.bytes_filtered / 1e3, m.bytes_fast / 1e3,
                m.bytes_summary / 1e3, m.pages, m.bytes_resident / 1e3, m.drive_us, m.cpu_us);
  }
  std::printf(
      "\nerror: |out - exact| / |exact|. mass: exact attention weight of the tokens whose V was attended, mean and worst query head.\n"
      "flash: whole pages read. filter: their wanted entries. fast: K and V kept in fast memory. summ: summary rows read. resid: fast\n"
      "memory needed. drive: modelled, 8 x 1.4 GB/s, an engine that keeps up. cpu: measured, one thread, median.\n");
}

void write_json(const std::vector<measurement>& results, const std::string& file) {
  nlohmann::json all = nlohmann::json::array();
  for (const measurement& m : results) {
    all.push_back({{"method", m.method},
                   {"workload", m.workload},
                   {"budget", m.budget},
                   {"rel_error", m.rel_error},
                   {"mass_mean", m.mass_mean},
                   {"mass_min", m.mass_min},
                   {"bytes_flash", m.bytes_flash},
                   {"bytes_filtered", m.bytes_filtered},
                   {"bytes_fast", m.bytes_fast},
                   {"bytes_summary", m.bytes_summary},
                   {"bytes_link", m.bytes_link},
                   {"pages", m.pages},
                   {"bytes_resident", m.bytes_resident},
                   {"drive_us", m.drive_us},
                   {"cpu_us", m.cpu_us}});
  }
  std::ofstream out(file);
  out << all.dump(1) << '\n';
  if (!out) {
    throw bad_file("bench methods: " + file + " cannot be written");
  }
}

// Two pictures a workload: error over bytes of K and V read from any memory, and over the drive's time.
void write_figures(const std::vector<measurement>& results, const std::string& folder) {
  std::map<std::string, std::vector<const measurement*>> by_workload;
  for (const measurement& m : results) {
    by_workload[m.workload].push_back(&m);
  }
  for (const auto& [workload, rows] : by_workload) {
    for (const bool by_bytes : {true, false}) {
      std::vector<methods::curve> curves;
      for (const measurement* m : rows) {
        const double cost = by_bytes ? (m->bytes_filtered + m->bytes_fast) / 1e3 : m->drive_us;
        if (m->rel_error < 1e-5 || cost <= 0) {
          continue;  // dense; and what never reads the drive has no point over its time
        }
        if (curves.empty() || curves.back().name != m->method) {
          const auto same = std::ranges::find(curves, m->method, &methods::curve::name);
          if (same == curves.end()) {
            curves.push_back({m->method, {}});
          } else {
            std::ranges::rotate(same, same + 1, curves.end());
          }
        }
        curves.back().points.emplace_back(cost, m->rel_error);
      }
      std::ranges::sort(curves, {}, &methods::curve::name);
      const std::string file = folder + "/methods-" + workload + (by_bytes ? "-bytes" : "-time") + ".svg";
      std::ofstream out(file);
      methods::error_over("Error at budgets 1/2 to 1/32: " + workload,
                          by_bytes ? "K and V read a layer, KB" : "modelled drive time a layer, us", curves)
          .write(out);
      if (!out) {
        throw bad_file("bench methods: " + file + " cannot be written");
      }
    }
  }
}

int usage() {
  std::fprintf(stderr, "usage: ./dev bench methods [--trace FILE] [--json FILE] [--figures DIR]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> options{{"--trace", INSTINFER_DEFAULT_TRACE}};
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc || (std::strcmp(argv[i], "--trace") != 0 && std::strcmp(argv[i], "--json") != 0 &&
                          std::strcmp(argv[i], "--figures") != 0)) {
      return usage();
    }
    options[argv[i]] = argv[i + 1];
  }
  try {
    std::vector<measurement> results;
    compare(methods::of_trace(trace::read(options["--trace"]), 64), results);
    const workload::sample topics = workload::topics{.queries = 64}();
    compare(methods::of_sample("topics", topics), results);
    compare(methods::of_sample("shuffled", workload::shuffled(topics)), results);
    print(results);
    if (options.contains("--json")) {
      write_json(results, options["--json"]);
    }
    if (options.contains("--figures")) {
      write_figures(results, options["--figures"]);
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench methods: %s\n", e.what());
    return 1;
  }
}
