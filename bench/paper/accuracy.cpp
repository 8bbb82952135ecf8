// The engines behind measure_accuracy, compiled once for the benchmark and its test.

#include <cmath>

#include "paper/accuracy.hpp"

#include "methods/measure.hpp"

namespace instinfer::paper {
namespace {

using methods::decode_case;
using methods::exact_answers;

constexpr std::size_t measured_queries = 32;

template <class Policy, class Layout>
accuracy lost(const std::string& method, double compression, const Policy& policy,
              const decode_case& c, const exact_answers& exact) {
  using engine = cpu::engine<design<Policy, Layout, flash::instcsd, transfer::in_storage>,
                             kv_format<fp16, 64>>;
  engine cache(
      {.layers = static_cast<int>(c.layers.size()),
       .q_heads = static_cast<int>(c.q_heads),
       .kv_heads = static_cast<int>(c.kv_heads)},
      {.bytes = std::uint64_t{64} << 20, .context_tokens = static_cast<std::uint32_t>(c.tokens)},
      policy);
  const sequence seq = cache.open();
  const std::size_t row = c.kv_heads * c.head_dim;
  const auto append = [&](std::size_t first, std::size_t last) {
    for (std::size_t l = 0; l < c.layers.size(); ++l) {
      cache.append(seq, static_cast<int>(l),
                   std::span(c.layers[l].k).subspan(first * row, (last - first) * row),
                   std::span(c.layers[l].v).subspan(first * row, (last - first) * row));
    }
  };
  append(0, c.prompt());
  accuracy sum{.workload = c.name, .method = method, .compression = compression};
  typename engine::scratch scratch;
  std::vector<float> out(c.q_heads * c.head_dim);
  for (std::size_t i = 0; i < c.queries; ++i) {
    append(c.prompt() + i, c.prompt() + i + 1);
    if (i < c.first_measured() && !methods::feeds_back<Policy>) {
      continue;
    }
    for (std::size_t l = 0; l < c.layers.size(); ++l) {
      const auto layer = static_cast<int>(l);
      methods::watch_attended watch(c.kv_heads, cache.cache().tiles().v_by_token.tokens);
      cache.attend(seq, layer, c.query(l, i), out, scratch, parallel::serial{}, watch);
      if (i < c.first_measured()) {
        continue;
      }
      double difference = 0;
      double norm = 0;
      for (std::size_t h = 0; h < c.q_heads; ++h) {
        const methods::exact_answer& truth = exact[l][i - c.first_measured()][h];
        const auto kv_head = static_cast<std::uint32_t>(h * c.kv_heads / c.q_heads);
        watch.heads[kv_head].tokens.view().for_each([&](std::uint32_t t) {
          sum.mass +=
              truth.weights[methods::position_of(cache.cache().at(seq, layer), kv_head, t)] /
              static_cast<double>(c.q_heads);
        });
        for (std::size_t d = 0; d < c.head_dim; ++d) {
          const double e = truth.output[static_cast<Eigen::Index>(d)];
          const double mine = static_cast<double>(out[h * c.head_dim + d]);
          difference += (mine - e) * (mine - e);
          norm += e * e;
        }
      }
      sum.rel_error += std::sqrt(difference / norm);
    }
  }
  const auto n = static_cast<double>(c.measured * c.layers.size());
  sum.rel_error /= n;
  sum.mass /= n;
  return sum;
}

// The stream's last queries, one a token, with 512 before them for H2O to learn from.
decode_case of_stream(const workload::sample& s) {
  const auto tokens = static_cast<std::size_t>(s.tokens());
  const auto dim = static_cast<std::size_t>(s.dim);
  const std::size_t queries = 512 + measured_queries;
  return {.name = "switching",
          .head_dim = dim,
          .tokens = tokens,
          .queries = queries,
          .measured = measured_queries,
          .consecutive = true,
          .layers = {{methods::stored(s.k),
                      methods::stored(s.v),
                      {s.q.end() - static_cast<std::ptrdiff_t>(queries * dim), s.q.end()}}}};
}

}  // namespace

std::vector<accuracy> measure_accuracy() {
  using namespace attention;
  using rows = layout::token_indexed<>;
  using both = layout::dual<>;
  const auto with_sparf = [](double of, const decode_case& c, const exact_answers& exact) {
    return lost<sparf, both>("SparF", of, sparf::as_published(of), c, exact);
  };
  const auto with_h2o = [](double of, const decode_case& c, const exact_answers& exact) {
    const auto half = static_cast<std::uint32_t>(static_cast<double>(c.tokens) / of) / 2;
    return lost<h2o, rows>("H2O", of, h2o{.heavy = half, .recent = half}, c, exact);
  };
  const decode_case c = methods::of_trace(trace::read(INSTINFER_DEFAULT_TRACE), measured_queries);
  const exact_answers exact = methods::solve(c);
  std::vector<accuracy> all;
  for (const double of : {2.0, 4.0, 8.0, 16.0}) {
    const auto kept = static_cast<std::uint32_t>(static_cast<double>(c.tokens) / of);
    all.push_back(with_sparf(of, c, exact));
    all.push_back(lost<sparq, both>("SparQ", of, sparq::at_compression(of), c, exact));
    all.push_back(with_h2o(of, c, exact));
    all.push_back(lost<streaming_llm, rows>(
        "StreamingLLM", of, streaming_llm{.window = budget::at_most(kept - 4)}, c, exact));
    all.push_back(lost<streaming_llm, rows>(
        "window", of, streaming_llm{.sinks = 0, .window = budget::at_most(kept)}, c, exact));
  }
  const decode_case stream = of_stream(workload::switching_stream{}());
  const exact_answers answers = methods::solve(stream);
  all.push_back(with_sparf(8, stream, answers));
  all.push_back(with_h2o(8, stream, answers));
  return all;
}

}  // namespace instinfer::paper
