// Messages: what is put is taken; what arrives is bounded. Failures keep their type.

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "instinfer/cluster/failure.hpp"
#include "instinfer/cluster/message.hpp"
#include "instinfer/cluster/message_stream.hpp"

namespace instinfer::test_message {

using namespace cluster;

// As a communicator carries it.
void carry(message& from, message& to) {
  const auto bytes = from.to_send();
  const std::span<std::byte> room = to.to_receive(bytes.size());
  std::memcpy(room.data(), bytes.data(), bytes.size());
  CHECK(to.announced() == bytes.size());
}

TEST_CASE("values arrive in their order, each at a multiple of 8 bytes") {
  message a, b;
  const std::vector<float> three{1, 2, 3};
  for (int round = 0; round < 2; ++round) {  // the second in the same memory
    a.clear();
    a.put(std::uint32_t{7});
    a.put_all(std::span<const float>(three));
    a.put(std::int64_t{-5});
    a.front<std::uint32_t>() = 8;
    CHECK(a.size() == 8 + 8 + 16 + 8);
    carry(a, b);
    CHECK(b.take<std::uint32_t>() == 8);
    const auto values = b.take<float>(3);
    CHECK(reinterpret_cast<std::uintptr_t>(values.data()) % 8 == 0);
    CHECK(std::vector(values.begin(), values.end()) == three);
    CHECK(b.take<std::int64_t>() == -5);
    CHECK_THROWS_WITH_AS(b.take<char>(), "cluster: a message of 40 bytes ends too early", error);
  }
}

TEST_CASE("a stream through a message: the same bytes, whatever pieces they come in") {
  std::string all(30'000, ' ');
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<char>(i * 37 % 251);
  }
  message a, b;
  a.put(std::uint32_t{7});
  {
    message_writer out(a);
    std::size_t at = 0;
    const auto write = [&](std::size_t bytes) {
      out.write(all.data() + at, static_cast<std::streamsize>(bytes));
      at += bytes;
    };
    for (const std::size_t bytes : {1u, 4000u, 0u, 95u, 1u, 4096u, 4097u, 10'000u}) {
      write(bytes);
    }
    while (at < all.size()) {
      out.put(all[at++]);
    }
    out.flush();
    CHECK(out.good());
  }
  carry(a, b);
  CHECK(b.take<std::uint32_t>() == 7);
  message_reader in(b);
  std::string taken(all.size(), ' ');
  in.read(taken.data(), 5000);
  in.get(taken[5000]);
  in.read(taken.data() + 5001, std::ssize(taken) - 5001);
  CHECK(in.good());
  CHECK(taken == all);
  CHECK(b.ends());
  CHECK(in.get() == std::char_traits<char>::eof());
}

TEST_CASE("memory is kept, but for that of large messages") {
  message m;
  for (const std::size_t bytes : {std::size_t{10} << 20, std::size_t{40} << 20}) {
    m.room<char>(bytes);
    CHECK(m.memory() >= bytes);
    m.clear();
    CHECK((m.memory() >= bytes) == (bytes == std::size_t{10} << 20));
  }
}

template <class E>
void check_type(const E& e) {
  message m;
  try {
    throw e;
  } catch (...) {
    failure::current().put_to(m);
  }
  const failure arrived = failure::take_from(m);
  CHECK(static_cast<bool>(arrived));
  bool same = false;
  try {
    arrived.rethrow(3);
  } catch (const E& again) {
    same = typeid(again) == typeid(E);
    CHECK(std::string(again.what()) == "rank 3: " + std::string(e.what()));
  } catch (...) {
  }
  CHECK(same);
}

TEST_CASE("an exception keeps its type, and names its rank") {
  check_type(bad_argument("layer"));
  check_type(unknown_sequence("4"));
  check_type(drive_full("no page"));
  check_type(address_overflow("token"));
  check_type(bad_file("damaged"));
  check_type(io_error("pread", 5));
  check_type(page_damaged("page 9", page_id{9}));
  check_type(no_device("none"));
  check_type(device_error("launch"));
  check_type(error("another"));
  try {
    failure{failure::type::io_error, 5, "pread"}.rethrow(1);
  } catch (const io_error& e) {
    CHECK(e.code == 5);
  }
  try {
    failure{failure::type::page_damaged, 9, "page"}.rethrow(1);
  } catch (const page_damaged& e) {
    CHECK(e.page == page_id{9});
  }
  const auto of = [](auto&& raise) {
    try {
      raise();
    } catch (...) {
      return failure::current();
    }
    return failure{};
  };
  CHECK_THROWS_WITH_AS(of([] { throw std::bad_alloc(); }).rethrow(2), "rank 2: out of memory",
                       std::bad_alloc);
  CHECK_THROWS_WITH_AS(of([] { throw std::runtime_error("odd"); }).rethrow(2), "rank 2: odd",
                       error);
  CHECK(of([] { throw 5; }).kind == failure::type::other);
}

}  // namespace instinfer::test_message
