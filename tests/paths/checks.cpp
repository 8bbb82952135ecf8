#include "checks.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "transcription.hpp"

namespace instinfer::test {

namespace {

// Row h of out [heads, dims].
std::span<const float> row_of(std::span<const float> out, Eigen::Index h, Eigen::Index dims) {
  return out.subspan(static_cast<std::size_t>(h * dims), static_cast<std::size_t>(dims));
}

}  // namespace

double relative_error(std::span<const float> a, const row_vector& b) {
  double difference = 0.0;
  double square = 0.0;
  for (Eigen::Index i = 0; i < b.size(); ++i) {
    difference += (a[static_cast<std::size_t>(i)] - b[i]) * (a[static_cast<std::size_t>(i)] - b[i]);
    square += b[i] * b[i];
  }
  const double norm = std::sqrt(square);
  return norm > 0.0 ? std::sqrt(difference) / norm : std::sqrt(difference);
}

void check_dense(const exact_cache& cache, std::span<const float> out, const logit_rule& rule,
                 double bound) {
  Eigen::Index row = 0;
  for (std::size_t g = 0; g < cache.Q.size(); ++g) {
    for (Eigen::Index h = 0; h < cache.Q[g].rows(); ++h, ++row) {
      const row_vector expected =
          defined_attention(cache.Q[g].row(h), cache.K[g], cache.V[g], rule);
      CHECK(relative_error(row_of(out, row, cache.V[g].cols()), expected) <= bound);
    }
  }
}

void check_sparse(const exact_cache& cache, const attended& attend, const sparse_rule& sparse,
                  const logit_rule& rule, bool all_tied, double bound) {
  const auto visible = static_cast<int>(defined_visible(0, cache.tokens, rule).size());
  Eigen::Index row = 0;
  for (std::size_t g = 0; g < cache.Q.size(); ++g) {
    const matrix& Q = cache.Q[g];
    const matrix& K = cache.K[g];
    const matrix& V = cache.V[g];
    const head_record& head = attend.seen.heads[g];
    const sparf_selection mine{
        head.chosen[static_cast<int>(attention::operation::top_dims)].at(0),
        head.chosen[static_cast<int>(attention::operation::top_tokens)].at(0)};
    const int r = defined_kept(sparse.dims, static_cast<int>(K.cols()));
    const int k = defined_kept(sparse.tokens, visible);
    const int local = defined_kept(sparse.local, k);
    const auto free = transcribed_sparf(Q, K, V, r, k, local, sparse.by_logits, rule);
    CHECK(mine.dims == free.chosen.dims);
    REQUIRE(mine.tokens.size() == free.chosen.tokens.size());
    CHECK((!all_tied || mine.tokens == free.chosen.tokens));  // the lowest ones, and the newest
    // A token that fp64 would not have chosen must be as good as the worst chosen one, to fp32
    // rounding; in fp32, weights below 2^-126 are 0 for each head.
    double worst = 1e300;
    for (const int t : free.chosen.tokens) {
      worst = std::min(worst, free.rank[t]);
    }
    const double slack = 1e-4 * std::abs(worst) + static_cast<double>(Q.rows()) * 0x1p-126;
    for (const int t : mine.tokens) {
      const bool forced = t >= cache.tokens - local;
      CHECK((forced || free.rank[t] >= worst - slack));
    }
    const matrix expected =
        transcribed_sparf(Q, K, V, r, k, local, sparse.by_logits, rule, mine).out;
    for (Eigen::Index h = 0; h < Q.rows(); ++h, ++row) {
      CHECK(relative_error(row_of(attend.out, row, V.cols()), expected.row(h)) <= bound);
    }
  }
}

void check_sparse_as_stored(const exact_cache& stored, const std::vector<matrix>& K_scored,
                            const attended& mine, int first, double bound) {
  Eigen::Index row = 0;
  for (std::size_t g = 0; g < stored.Q.size(); ++g) {
    const matrix& Q = stored.Q[g];
    const matrix& K = stored.K[g];
    const matrix& V = stored.V[g];
    const head_record& head = mine.seen.heads[g];
    const auto& dims = head.chosen[static_cast<int>(attention::operation::top_dims)].at(0);
    const auto& tokens = head.chosen[static_cast<int>(attention::operation::top_tokens)].at(0);
    const auto scores = [&](const row_vector& query) {
      row_vector products = row_vector::Zero(K.rows());
      double norm = 0;
      for (const int i : dims) {
        products += query[i] * K_scored[g].col(i).transpose();
        norm += std::abs(query[i]);
      }
      const double share = norm / query.cwiseAbs().sum();
      return defined_softmax(products / std::sqrt(static_cast<double>(K.cols()) * share));
    };
    for (Eigen::Index h = 0; h < Q.rows(); ++h, ++row) {
      const row_vector q = Q.row(h);
      row_vector rank = row_vector::Zero(K.rows());
      for (Eigen::Index other = 0; other < Q.rows(); ++other) {
        rank += scores(Q.row(other));
      }
      double kept = 0;
      double worst_chosen = 1e300;
      matrix K_chosen(static_cast<Eigen::Index>(tokens.size()), K.cols());
      matrix V_chosen(static_cast<Eigen::Index>(tokens.size()), V.cols());
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        const Eigen::Index at = tokens[i] - first;
        kept += scores(q)[at];
        worst_chosen = std::min(worst_chosen, rank[at]);
        rank[at] = 0;
        K_chosen.row(static_cast<Eigen::Index>(i)) = K.row(at);
        V_chosen.row(static_cast<Eigen::Index>(i)) = V.row(at);
      }
      CHECK(rank.maxCoeff() <= worst_chosen * (1 + 1e-4));
      const row_vector expected =
          kept * defined_attention(q, K_chosen, V_chosen) + (1 - kept) * V.colwise().mean();
      CHECK(relative_error(row_of(mine.out, row, V.cols()), expected) <= bound);
    }
  }
}

void check_means_of_values(const exact_cache& cache, std::span<const float> out, double bound) {
  const matrix& V = cache.V.at(0);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double mine = static_cast<double>(out[i]);
    const auto column = V.col(static_cast<Eigen::Index>(i) % V.cols());
    const double slack = bound * column.cwiseAbs().maxCoeff();
    REQUIRE((mine >= column.minCoeff() - slack && mine <= column.maxCoeff() + slack));
  }
}

void check_end(const exact_cache& cache, std::span<const float> out, bool keep_all, double bound) {
  const matrix& V = cache.V.at(0);
  for (Eigen::Index h = 0; h < cache.Q.at(0).rows(); ++h) {
    const row_vector expected = keep_all ? defined_attention(cache.Q[0].row(h), cache.K.at(0), V)
                                         : row_vector(V.colwise().mean());
    CHECK(relative_error(row_of(out, h, V.cols()), expected) <= bound);
  }
}

void check_pages(const std::map<page_id, int>& read, const attended& mine, std::size_t element,
                 bool filtered) {
  CHECK(read == mine.seen.pages());
  std::uint64_t pages = 0;
  std::uint64_t wanted = 0;
  std::uint64_t buffered = 0;
  for (const head_record& head : mine.seen.heads) {
    for (const page_read& of : head.reads) {
      (of.buffered ? buffered : wanted) += of.wanted_elements() * element;
      pages += of.buffered ? 0 : 1;
    }
  }
  CHECK(mine.traffic.pages_read == pages);
  CHECK(mine.traffic.array_bytes == pages * 4096);
  CHECK(mine.traffic.buffer_bytes == buffered);
  CHECK(mine.traffic.filtered_bytes == (filtered ? wanted : pages * 4096));
}

void check_coded_pages(std::map<page_id, int> read, const attended& mine, const entry_size& entry) {
  const auto planned = mine.seen.pages();
  CHECK(read.size() == planned.size());
  for (const auto& [page, times] : planned) {
    CHECK(read[page] >= times);
  }
  std::uint64_t pages = 0;
  std::uint64_t wanted = 0;
  std::uint64_t buffered = 0;
  for (const head_record& head : mine.seen.heads) {
    for (const access_plan& plan : head.plans) {
      std::uint64_t elements = 0;
      for (const page_read& of : plan.reads()) {
        (of.buffered ? buffered : elements) += of.wanted_elements();
        pages += of.buffered ? 0 : 1;
      }
      wanted += (elements * entry.packed_bytes + entry.packed_elements - 1) / entry.packed_elements;
    }
  }
  CHECK(mine.traffic.pages_read == pages);
  CHECK(mine.traffic.array_bytes == pages * 4096);
  CHECK(mine.traffic.buffer_bytes == buffered * entry.open_bytes);
  CHECK(mine.traffic.filtered_bytes == wanted + pages * entry.scale_bytes);
}

}  // namespace instinfer::test
