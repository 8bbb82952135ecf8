#pragma once
// What the tests of selection methods share: a decoder of one sequence and layer that keeps what
// its policy chose and read, and the checks that every method must pass on every path.

#include <deque>

#include "instinfer/layout/token_indexed.hpp"
#include "instinfer/summaries/cluster_index.hpp"
#include "support/workload.hpp"
#include "tests/paths/suite.hpp"
#include "tests/support/refusal.hpp"
#include "tests/support/rows.hpp"
#include "tests/support/token_lists.hpp"

namespace instinfer::test {

template <class Policy>
concept Clustered = requires { typename Policy::indexed_by; };

template <class Policy, class Path, class Layout = layout::token_indexed<>>
class decoder {
 public:
  using policy_type = Policy;
  using path = Path;
  using engine_type =
      instinfer::engine<design<Policy, Layout, flash::instcsd, transfer::in_storage>, method_format,
                        Path, watched_store>;

  explicit decoder(const Policy& policy, int q_heads = 1, int kv_heads = 1,
                   const logit_rule& rule = {}, std::uint64_t bytes = std::uint64_t{64} << 20,
                   int layers = 1)  // of the model; the first one decodes
      : engine({.layers = layers, .q_heads = q_heads, .kv_heads = kv_heads},
               {.bytes = bytes, .context_tokens = 1024}, policy, rule),
        seq{engine.open()},
        seen(kv_heads),
        out(static_cast<std::size_t>(q_heads) * 64) {}

  // k and v [new_tokens, kv_heads, 64].
  void append(std::span<const float> k, std::span<const float> v,
              std::span<const float> index_keys = {}) {
    traffic = engine.append(seq, 0, k, v, index_keys).traffic;
  }

  receipt build()
    requires Clustered<Policy>
  {
    const receipt done = engine.build(seq, 0);
    traffic = done.traffic;
    return done;
  }

  // One query of every head, [q_heads, 64].
  std::span<const float> attend(std::span<const float> q,
                                const attention::index_query& index = {}) {
    seen = recorder(static_cast<int>(seen.heads.size()));
    engine.cache().pages().reads.clear();
    log_sum_exp.assign(out.size() / 64, 0.0f);
    const attend_request one{
        .seq = seq, .q = q, .out = out, .index = index, .log_sum_exp = log_sum_exp};
    traffic = engine.attend(std::span(&one, 1), 0, work, parallel::serial{}, seen).traffic;
    return out;
  }

  template <class Summary>
  auto& summary(std::uint32_t kv_head = 0) const {
    return std::get<typename Summary::template state<method_format>>(
        engine.cache().at(seq, 0).summaries(kv_head));
  }

  // The position at which a token of a head was appended; clusters move tokens.
  int position(std::uint32_t kv_head, std::uint32_t token) const {
    if constexpr (Clustered<Policy>) {
      return static_cast<int>(summary<attention::cluster_index>(kv_head).position(token));
    } else {
      return static_cast<int>(token);
    }
  }

  // Tokens whose values the last attend folded, by position, ascending; twice where folded twice.
  token_list folded(std::uint32_t kv_head = 0) const {
    const std::uint32_t tile = engine.cache().tiles().v_by_token.tokens;
    token_list tokens;
    for (const access_plan& plan : seen.heads[kv_head].plans) {
      for (const page_read& read : plan.reads()) {
        if (read.kind == stream::v_by_token && read.dim_tile == 0) {
          plan.tokens(read).for_each([&](std::uint32_t t) {
            tokens.push_back(position(kv_head, read.token_tile * tile + t));
          });
        }
      }
    }
    std::ranges::sort(tokens);
    return tokens;
  }

  engine_type engine;
  sequence seq;
  recorder seen;               // of the last attend
  instinfer::traffic traffic;  // by the last call
  std::vector<float> out;
  std::vector<float> log_sum_exp;  // [q_heads]
  typename engine_type::scratch work;
};

// What the last attend of a random cache must equal: exact attention over the tokens that were
// folded, each of them once.
template <class Decoder>
void check_equals_attention_over_folded(Decoder& d, const random_cache<method_format>& data) {
  const int group = data.group();
  for (int g = 0; g < data.kv_heads; ++g) {
    const token_list folded = d.folded(static_cast<std::uint32_t>(g));
    CHECK(std::ranges::adjacent_find(folded) == folded.end());
    matrix Q(group, 64);
    for (int h = 0; h < group; ++h) {
      Q.row(h) = data.Q(g * group + h);
    }
    const matrix expected =
        attention_over(Q, data.K(g, 0, data.tokens), data.V(g, 0, data.tokens), folded);
    for (int h = 0; h < group; ++h) {
      CHECK(relative_error(rows_of(d.out, static_cast<std::size_t>(g * group + h), 1),
                           expected.row(h)) <= tolerance<typename Decoder::path>(data.tokens));
    }
  }
}

// Pages that the path reads = pages that the plans name = what the receipt counts, residence by
// residence.
template <class Decoder>
void check_plan_is_access(const Decoder& d) {
  CHECK(d.engine.cache().pages().reads == d.seen.pages());
  traffic counted;
  for (const head_record& head : d.seen.heads) {
    for (const page_read& read : head.reads) {
      const std::uint64_t bytes = read.wanted_elements() * sizeof(float);
      (read.from != residence::flash ? counted.fast_bytes
       : read.buffered               ? counted.buffer_bytes
                                     : counted.filtered_bytes) += bytes;
      counted.pages_read += read.costs_flash() ? 1 : 0;
    }
  }
  CHECK(d.traffic.pages_read == counted.pages_read);
  CHECK(d.traffic.array_bytes == counted.pages_read * 4096);
  CHECK(d.traffic.fast_bytes == counted.fast_bytes);
  CHECK(d.traffic.buffer_bytes == counted.buffer_bytes);
  CHECK(d.traffic.filtered_bytes == counted.filtered_bytes);
}

template <class Policy, class Path, class Layout>
void check_random_cache(const Policy& policy, unsigned seed, int tokens, int group, bool all) {
  CAPTURE(seed);
  CAPTURE(tokens);
  CAPTURE(group);
  CAPTURE(all);
  const random_cache<method_format> data(seed, tokens, 2 * group, 2);
  decoder<Policy, Path, Layout> d(policy, 2 * group, 2);
  d.append(data.k, data.v);
  if constexpr (Clustered<Policy>) {
    if (tokens > 0) {
      d.build();
    }
  }
  d.attend(data.q);
  check_equals_attention_over_folded(d, data);
  check_plan_is_access(d);
  for (std::uint32_t g = 0; all && g < 2; ++g) {
    CHECK(d.folded(g) == tokens_from_to(0, tokens));
  }
}

template <class Policy>
void on_every_path(auto&& check) {
  check.template operator()<Policy, reference::path, layout::token_indexed<>>();
  check.template operator()<Policy, cpu::path, layout::token_indexed<>>();
  check.template operator()<Policy, cpu::path, layout::dual<>>();
}

// G1: everything selected is dense attention. G3: so is a selection, over what it holds. Plan =
// access.
template <class Policy>
void check_method(const Policy& all, const Policy& few) {
  static_assert(attention::AttentionPolicy<Policy>);
  on_every_path<Policy>([&]<class P, class Path, class Layout>() {
    for (const int group : {1, 3}) {
      for (const int tokens :
           {0, 1, page_tokens - 1, page_tokens, page_tokens + 1, 5 * page_tokens + 3, 300}) {
        check_random_cache<P, Path, Layout>(all, 1, tokens, group, true);
        check_random_cache<P, Path, Layout>(few, 2, tokens, group, false);
      }
    }
  });
}

// Share of the dense weights of query `q` that the last attend's tokens held, and the same as an
// error.
template <class Decoder>
double mass_held(const Decoder& d, std::span<const float> q, const matrix& K) {
  return mass_of(test::defined_weights(matrix_of(q).row(0), K), d.folded());
}

// Appends token t of a sample and attends its query.
template <class Decoder>
void decode_token(Decoder& d, const workload::sample& s, int t) {
  const auto at = static_cast<std::size_t>(t);
  d.append(rows_of(s.k, at, 1), rows_of(s.v, at, 1));
  d.attend(rows_of(s.q, at, 1));
}

inline token_list list_of(index_view set) {
  token_list list;
  set.for_each([&](std::uint32_t i) { list.push_back(static_cast<int>(i)); });
  return list;
}

template <class Decoder>
double error_against(const Decoder& d, const row_vector& expected) {
  return relative_error(d.out, expected);
}

// What a method does on a sample, over its queries from first_query on.
struct figures {
  double mass = 0;  // mean over the queries
  double least = 1;
  double error = 0;
  double read = 0;  // share of the tokens that were attended exactly
};

template <class Policy, class Layout = layout::token_indexed<>>
figures measure(const Policy& policy, const workload::sample& s, int first_query = 0) {
  const matrix K = matrix_of(s.k);
  const matrix V = matrix_of(s.v);
  decoder<Policy, cpu::path, Layout> d(policy);
  d.append(s.k, s.v);
  if constexpr (Clustered<Policy>) {
    d.build();
  }
  figures f;
  const int queries = s.queries() - first_query;
  for (int i = first_query; i < s.queries(); ++i) {
    const auto q = rows_of(s.q, static_cast<std::size_t>(i), 1);
    d.attend(q);
    const double mass = mass_held(d, q, K);
    f.mass += mass / queries;
    f.least = std::min(f.least, mass);
    f.error += relative_error(d.out, test::defined_attention(matrix_of(q).row(0), K, V)) / queries;
    f.read += static_cast<double>(d.folded().size()) / s.tokens() / queries;
  }
  return f;
}

// G4: each budget of a growing list holds what the one before holds, so at least its mass.
template <class Policy>
void check_mass_grows(const std::vector<Policy>& growing, const workload::sample& s) {
  const matrix K = matrix_of(s.k);
  std::deque<decoder<Policy, cpu::path>> decoders;
  for (const Policy& policy : growing) {
    auto& d = decoders.emplace_back(policy);
    d.append(s.k, s.v);
    if constexpr (Clustered<Policy>) {
      d.build();
    }
  }
  for (int i = 0; i < s.queries(); ++i) {
    const auto q = rows_of(s.q, static_cast<std::size_t>(i), 1);
    double before = 0.0;
    token_list held;
    for (auto& d : decoders) {
      d.attend(q);
      CHECK(std::ranges::includes(d.folded(), held));
      CHECK(mass_held(d, q, K) >= before);
      held = d.folded();
      before = mass_held(d, q, K);
    }
    CHECK(before > 0.5);
  }
}

// A decode on random data whose numbers are multiples of 1/64, so that an offset can be added to
// all keys exactly. Returns the outputs of all steps, and what was folded.
template <class Policy, class Path>
auto decode_with_offset(const Policy& policy, float offset, int prompt, int steps) {
  std::mt19937 random(21);
  const auto rough = [&] {
    return static_cast<float>(static_cast<int>(random() % 256) - 128) / 64;
  };
  const auto tokens = static_cast<std::size_t>(prompt + steps);
  std::vector<float> k(tokens * 64);
  std::vector<float> v(k.size());
  std::vector<float> q(k.size());
  std::vector<float> c(64);
  std::ranges::generate(c, rough);
  for (std::size_t i = 0; i < k.size(); ++i) {
    k[i] = rough() + offset * c[i % 64];
    v[i] = rough();
    q[i] = rough();
  }
  decoder<Policy, Path> d(policy);
  const auto n = static_cast<std::size_t>(prompt);
  d.append(rows_of(k, 0, n), rows_of(v, 0, n));
  if constexpr (Clustered<Policy>) {
    d.build();
  }
  struct {
    std::vector<float> out;
    std::vector<token_list> folded;
  } all;
  for (std::size_t t = n; t < tokens; ++t) {
    d.append(rows_of(k, t, 1), rows_of(v, t, 1));
    d.attend(rows_of(q, t, 1));
    all.out.insert(all.out.end(), d.out.begin(), d.out.end());
    all.folded.push_back(d.folded());
  }
  return all;
}

// G6: K + 1 c^T chooses the same tokens and gives the same output. The offset here moves logits by
// up to 8 |q| |c| / sqrt(64) or some 60, of which fp32 keeps 2^-18.
template <class Policy>
void check_offset_invariant(const Policy& policy, int prompt = 300, int steps = 6) {
  const auto check = [&]<class Path>() {
    const auto plain = decode_with_offset<Policy, Path>(policy, 0, prompt, steps);
    const auto moved = decode_with_offset<Policy, Path>(policy, 4, prompt, steps);
    CHECK(plain.folded == moved.folded);
    const matrix expected = matrix_of(plain.out);
    for (int i = 0; i < steps; ++i) {
      CHECK(relative_error(rows_of(moved.out, static_cast<std::size_t>(i), 1), expected.row(i)) <=
            4 * 0x1p-18);
    }
  };
  check.template operator()<reference::path>();
  check.template operator()<cpu::path>();
}

}  // namespace instinfer::test
