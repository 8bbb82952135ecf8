#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/summaries/kmeans.hpp"
#include "tests/support/normals.hpp"
#include "tests/support/transcribed_kmeans.hpp"

namespace instinfer::test_kmeans {

using namespace attention;
using namespace test::transcribed;

namespace {

std::vector<float> random_rows(unsigned seed, int rows, int dim, float offset = 0) {
  std::mt19937 random(seed);
  normal_distribution normal;
  std::vector<float> x(static_cast<std::size_t>(rows * dim));
  for (float& value : x) {
    value = normal(random) + offset;
  }
  return x;
}

double inertia(std::span<const float> x, int dim, const clustering& c) {
  std::vector<row> rows = as_rows(x, dim);
  for (row& r : rows) {
    r = normalised(r);
  }
  double sum = 0;
  for (std::uint32_t cluster = 0; cluster < c.sizes.size(); ++cluster) {
    const row mean = mean_of(rows, c.cluster_of, cluster, row(static_cast<std::size_t>(dim), 0.0));
    for (std::size_t r = 0; r < rows.size(); ++r) {
      sum += c.cluster_of[r] == cluster ? squared_distance(rows[r], mean) : 0.0;
    }
  }
  return sum;
}

void check_books(const clustering& c, std::size_t rows, std::uint32_t clusters) {
  REQUIRE(c.cluster_of.size() == rows);
  REQUIRE(c.sizes.size() == clusters);
  std::vector<std::uint32_t> sizes(clusters);
  for (const std::uint32_t cluster : c.cluster_of) {
    REQUIRE(cluster < clusters);
    ++sizes[cluster];
  }
  CHECK(c.sizes == sizes);
}

std::string message_of(auto&& call) {
  try {
    call();
  } catch (const bad_argument& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("clusters are those of the definitions, written down in double") {
  std::mt19937 random(7);
  for (unsigned seed = 0; seed < 12; ++seed) {
    const int rows = 60 + static_cast<int>(random() % 120);
    const int dim = 1 + static_cast<int>(random() % 20);
    const auto clusters = 2 + static_cast<std::uint32_t>(random() % 80);  // more than one tile
    const auto few = std::min(clusters, static_cast<std::uint32_t>(rows) / 2);
    CAPTURE(seed);
    CAPTURE(rows);
    CAPTURE(dim);
    CAPTURE(few);
    const std::vector<float> x = random_rows(seed, rows, dim, seed % 2 == 0 ? 0.0f : 2.0f);
    if (dim > 1) {  // normalised rows of one dim are -1, 0 or 1: ties everywhere
      const cosine_kmeans cosine{.clusters = few, .seed = seed};
      const clustering c = cosine(x, dim);
      check_books(c, static_cast<std::size_t>(rows), few);
      CHECK(c.cluster_of == cosine_clusters(x, dim, cosine));
      CHECK(cosine(x, dim).cluster_of == c.cluster_of);
    }
    for (const bool centred : {true, false}) {
      for (const std::uint32_t segments : {1u, 2u}) {
        const segmented_kmeans segmented{.clusters = few, .segments = segments, .centred = centred};
        const clustering c = segmented(x, dim);
        check_books(c, static_cast<std::size_t>(rows), few);
        CHECK(c.cluster_of == segmented_clusters(x, dim, segmented));
      }
    }
  }
}

TEST_CASE("rows of any magnitude, also beyond what fp32 can multiply") {
  const std::vector<float> x = random_rows(21, 90, 13);
  for (const float scale : {0x1p-140f, 0x1p-80f, 0x1p-20f, 1.0f, 0x1p60f, 0x1p100f}) {
    std::vector<float> scaled = x;
    for (float& value : scaled) {
      value *= scale;
    }
    CAPTURE(scale);
    const segmented_kmeans how{.clusters = 30, .iterations = 0, .centred = false};
    CHECK(how(scaled, 13).cluster_of == segmented_clusters(scaled, 13, how));
  }
}

TEST_CASE("products that fp32 cannot tell apart are told apart") {
  // Centroid 1 is centroid 0 with one dim larger by its last bit.
  const int dim = 100;
  const std::vector<float> rows = random_rows(22, 200, dim);
  std::vector<float> centroids = random_rows(23, 1, dim);
  centroids.insert(centroids.end(), centroids.begin(), centroids.end());
  centroids[dim + 31] = std::nextafter(centroids[31], 1e9f);
  std::vector<std::uint32_t> assigned(200, 7);
  CHECK(attention::detail::assign(rows, dim, centroids, std::vector(2, 0.0), assigned));
  for (std::size_t r = 0; r < assigned.size(); ++r) {
    CHECK(assigned[r] == (rows[r * dim + 31] > 0 ? 1 : 0));
  }
  CHECK_FALSE(attention::detail::assign(rows, dim, centroids, std::vector(2, 0.0), assigned));
}

TEST_CASE("the error of fp32 products: the bound of rounding analysis, with room to spare") {
  constexpr double u = 0x1p-24;  // half a unit in the last place
  for (const std::size_t dim : {1u, 2u, 7u, 64u, 576u, 4096u}) {
    CAPTURE(dim);
    // A product is rounded once, and then by each of the sums, in any order: at most dim sums with
    // the bias. Higham, Accuracy and Stability of Numerical Algorithms, 3.1.
    const double roundings = static_cast<double>(dim) + 1;
    const double gamma = roundings * u / (1 - roundings * u);
    CHECK(attention::detail::fp32_error(dim, 3, 5, 7) >= gamma * (3 * 5 + 7));
    CHECK(attention::detail::fp32_error(dim, 3, 5, 7) <= 3 * gamma * (3 * 5 + 7));
    CHECK(attention::detail::fp32_error(dim, 3, 5) < attention::detail::fp32_error(dim, 3, 5, 7));
    // Denormal products are flushed to zero: each loses at most the smallest normal number, 2^-126.
    CHECK(attention::detail::fp32_error(dim, 0, 0) >= static_cast<double>(dim) * 0x1p-126);
    const std::vector<float> halves(dim, 0.5f);
    const double norm = 0.5 * std::sqrt(static_cast<double>(dim));
    CHECK(attention::detail::norm_bound(halves.data(), dim) >= norm);
    CHECK(attention::detail::norm_bound(halves.data(), dim) <= norm * (1 + 2e-6));
  }
}

TEST_CASE("segments are clustered as if each were alone") {
  const std::vector<float> x = random_rows(24, 150, 9);
  const clustering both = cosine_kmeans{.clusters = 21, .seed = 3, .segments = 2}(x, 9);
  const std::span<const float> all(x);
  const clustering first = cosine_kmeans{.clusters = 10, .seed = 3}(all.first(75 * 9), 9);
  const clustering second = cosine_kmeans{.clusters = 11, .seed = 3}(all.subspan(75 * 9), 9);
  std::vector<std::uint32_t> wanted = first.cluster_of;
  for (const std::uint32_t c : second.cluster_of) {
    wanted.push_back(10 + c);
  }
  CHECK(both.cluster_of == wanted);
  check_books(both, 150, 21);
  CHECK(message_of([&] { (void)cosine_kmeans{.clusters = 3, .segments = 4}(x, 9); }) ==
        "cosine_kmeans: 3 clusters make 1 to 3 segments, got 4");
}

TEST_CASE("each iteration of Lloyd lowers the inertia, and the last one changes nothing") {
  const int dim = 8;
  const std::vector<float> x = random_rows(3, 400, dim);
  double before = std::numeric_limits<double>::infinity();
  const int needed = cosine_kmeans{.clusters = 20}(x, dim).iterations;
  REQUIRE(needed < 300);
  for (int i = 1; i <= needed; ++i) {
    const clustering c = cosine_kmeans{.clusters = 20, .max_iterations = i}(x, dim);
    CHECK(c.iterations == i);
    const double now = inertia(x, dim, c);
    CHECK(now <= before * (1 + 1e-6));  // rows and centroids are floats
    CHECK((i < needed) == (now < before * (1 - 1e-9)));
    before = now;
  }
}

TEST_CASE("cluster-major order is a stable permutation") {
  const std::vector<float> x = random_rows(4, 300, 6);
  const clustering c = cosine_kmeans{.clusters = 37}(x, 6);
  const cluster_order order = cluster_major(c);
  REQUIRE(order.offsets.size() == 38);
  CHECK(order.offsets.front() == 0);
  CHECK(order.offsets.back() == 300);
  CHECK(std::set(order.rows.begin(), order.rows.end()).size() == 300);
  for (std::uint32_t cluster = 0; cluster < 37; ++cluster) {
    const auto members = order.members(cluster);
    CHECK(members.size() == c.sizes[cluster]);
    CHECK(std::ranges::is_sorted(members));
    for (const std::uint32_t r : members) {
      CHECK(c.cluster_of[r] == cluster);
    }
  }
}

TEST_CASE("means are those of the members, zero for an empty cluster") {
  const clustering c{{2, 0, 2, 2}, {1, 0, 3}, 1};
  const std::vector<float> rows{1, 2, 10, 20, 3, 4, 5, 9};
  CHECK(cluster_means(rows, 2, c) == std::vector<float>{10, 20, 0, 0, 3, 5});
}

TEST_CASE("as many clusters as rows give each row its own") {
  for (unsigned seed = 0; seed < 5; ++seed) {
    const std::vector<float> x = random_rows(seed, 70, 5);
    CHECK(cosine_kmeans{.clusters = 70, .seed = seed}(x, 5).sizes ==
          std::vector<std::uint32_t>(70, 1));
    // By inner product a row may prefer a neighbour's centroid; on the unit sphere it cannot.
    std::vector<float> chunk = x;
    attention::detail::normalise_rows(chunk, 5);
    CHECK(segmented_kmeans{.clusters = 70, .centred = false}(chunk, 5).sizes ==
          std::vector<std::uint32_t>(70, 1));
  }
}

TEST_CASE("copies, zeros and ties go to the lowest cluster; the others stay empty") {
  const std::vector<float> copies(5 * 3, 0.5f);
  const std::vector<float> zeros(5 * 3, 0.0f);
  for (const std::vector<float>& x : {copies, zeros}) {
    for (const clustering& c :
         {cosine_kmeans{.clusters = 4}(x, 3), segmented_kmeans{.clusters = 4}(x, 3),
          segmented_kmeans{.clusters = 4, .segments = 2}(x, 3)}) {
      CHECK(c.cluster_of == std::vector<std::uint32_t>(5, 0));
      CHECK(c.sizes == std::vector<std::uint32_t>{5, 0, 0, 0});
    }
  }
  // Row 4 = (1, 1) is as near to (1, 0) as to (0, 1), the centroids that even spacing starts from.
  const std::vector<float> between{1, 0, 1, 0, 0, 1, 0, 1, 1, 1};
  CHECK(segmented_kmeans{.clusters = 2, .iterations = 0, .centred = false}(between, 2).cluster_of ==
        std::vector<std::uint32_t>{0, 0, 1, 1, 0});
}

TEST_CASE("an empty cluster keeps its centroid, so that a later row can join it") {
  const std::vector<float> x{3, 0, 0, 1, 9, 0, 1, 0};
  const clustering c =
      segmented_kmeans{.clusters = 3, .segments = 1, .iterations = 1, .centred = false}(x, 2);
  // Starts are (3, 0), (0, 1), (9, 0). All rows along dim 0 go to the third; the first, left alone,
  // is normalised to the same direction, and wins the tie in the last pass.
  CHECK(c.cluster_of == std::vector<std::uint32_t>{0, 1, 0, 0});
  CHECK(c.sizes == std::vector<std::uint32_t>{3, 1, 0});
}

TEST_CASE("centred clustering does not see a constant added to all rows; uncentred does") {
  // Multiples of 1/64 and 256 rows: sums, means and differences are exact, so results must be
  // equal, not just close.
  std::mt19937 random(11);
  std::vector<float> x(256 * 8);
  for (float& value : x) {
    value = static_cast<float>(static_cast<int>(random() % 512) - 256) / 64;
  }
  std::vector<float> moved = x;
  for (std::size_t at = 0; at < moved.size(); ++at) {
    moved[at] += static_cast<float>(at % 8) * 3 - 8;
  }
  const segmented_kmeans how{.clusters = 16, .segments = 2};
  CHECK(how(x, 8).cluster_of == how(moved, 8).cluster_of);
  const segmented_kmeans raw{.clusters = 16, .segments = 2, .centred = false};
  CHECK(raw(x, 8).cluster_of != raw(moved, 8).cluster_of);
}

TEST_CASE("the paper's setting: 16 rows a cluster, whole segments") {
  const auto check = [](std::uint32_t rows, std::uint32_t clusters, std::uint32_t segments) {
    const auto how = segmented_kmeans::for_rows(rows);
    CHECK(how.clusters == clusters);
    CHECK(how.segments == segments);
  };
  check(8192, 512, 1);
  check(131072, 8192, 16);
  check(1024, 64, 1);
  check(24576, 1536, 3);
  check(24000, 1512, 3);  // 1500 to the nearest multiple of 24
  check(5, 5, 1);
  check(0, 0, 1);
}

TEST_CASE("the error of an inner product is bounded by dim + 4 rounding errors") {
  CHECK(attention::detail::fp32_error(60, 2, 3, 1) == 64 * (2 * 3 + 1) * 0x1p-24);
  CHECK(attention::detail::fp32_error(60, 0, 0) == 64 * 0x1p-125);  // of denormals
}

TEST_CASE("no rows make no clusters") {
  CHECK(cosine_kmeans{.clusters = 0}({}, 4).sizes.empty());
  const clustering c = segmented_kmeans{.clusters = 0}({}, 4);
  CHECK(c.cluster_of.empty());
  CHECK(cluster_major(c).offsets == std::vector<std::uint32_t>{0});
}

TEST_CASE("bad input is refused by name") {
  std::vector<float> x = random_rows(1, 10, 4);
  CHECK(message_of([&] { (void)cosine_kmeans{.clusters = 11}(x, 4); }) ==
        "cosine_kmeans: 10 rows make 1 to 10 clusters, got 11");
  CHECK(message_of([&] { (void)segmented_kmeans{.clusters = 0}(x, 4); }) ==
        "segmented_kmeans: 10 rows make 1 to 10 clusters, got 0");
  CHECK(message_of([&] { (void)cosine_kmeans{.clusters = 1}({}, 4); }) ==
        "cosine_kmeans: no rows make no clusters, got 1");
  CHECK(message_of([&] { (void)cosine_kmeans{.clusters = 2}(x, 7); }) ==
        "cosine_kmeans: 40 values are not whole rows of 7");
  CHECK(message_of([&] { (void)cosine_kmeans{.clusters = 2}(x, 0); }) ==
        "cosine_kmeans: dim must be positive, got 0");
  CHECK(message_of([&] { (void)cosine_kmeans{.clusters = 2, .max_iterations = 0}(x, 4); }) ==
        "cosine_kmeans: needs at least 1 iterations, got 0");
  CHECK(message_of([&] { (void)segmented_kmeans{.clusters = 2, .segments = 3}(x, 4); }) ==
        "segmented_kmeans: 2 clusters make 1 to 2 segments, got 3");
  CHECK(message_of([&] { (void)segmented_kmeans{.clusters = 2, .segments = 0}(x, 4); }) ==
        "segmented_kmeans: 2 clusters make 1 to 2 segments, got 0");
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    x[4 * 3 + 1] = bad;
    for (const std::string& message :
         {message_of([&] { (void)cosine_kmeans{.clusters = 2}(x, 4); }),
          message_of([&] { (void)segmented_kmeans{.clusters = 2}(x, 4); })}) {
      CHECK(message.find("row 3, dim 1 is ") != std::string::npos);
      CHECK(message.find("must be finite") != std::string::npos);
    }
  }
}

}  // namespace instinfer::test_kmeans
