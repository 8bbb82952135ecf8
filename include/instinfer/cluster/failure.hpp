#pragma once
// An exception of one rank, as a message carries it and as the host throws it again.

#include <cstdint>
#include <exception>
#include <new>
#include <string>

#include "instinfer/cluster/message.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer/drive/errors.hpp"

namespace instinfer::cluster {

// Memory ran out on another rank.
class rank_out_of_memory : public std::bad_alloc {
 public:
  explicit rank_out_of_memory(const std::string& what) : what_{what} {}
  const char* what() const noexcept override { return what_.what(); }

 private:
  std::runtime_error what_;  // copies do not throw
};

struct failure {
  enum class type : std::uint32_t {
    none,
    bad_argument,
    unknown_sequence,
    drive_full,
    address_overflow,
    bad_file,
    io_error,
    page_damaged,
    no_device,
    device_error,
    out_of_memory,
    other
  };
  type kind = type::none;
  std::int64_t detail = 0;  // errno of an io_error, the page of a page_damaged
  std::string text;

  explicit operator bool() const { return kind != type::none; }

  // The exception that is being handled.
  static failure current() {
    try {
      throw;
    } catch (const instinfer::bad_argument& e) {
      return {type::bad_argument, 0, e.what()};
    } catch (const instinfer::unknown_sequence& e) {
      return {type::unknown_sequence, 0, e.what()};
    } catch (const instinfer::drive_full& e) {
      return {type::drive_full, 0, e.what()};
    } catch (const instinfer::address_overflow& e) {
      return {type::address_overflow, 0, e.what()};
    } catch (const instinfer::bad_file& e) {
      return {type::bad_file, 0, e.what()};
    } catch (const instinfer::io_error& e) {
      return {type::io_error, e.code, e.what()};
    } catch (const instinfer::page_damaged& e) {
      return {type::page_damaged, static_cast<std::int64_t>(e.page), e.what()};
    } catch (const instinfer::no_device& e) {
      return {type::no_device, 0, e.what()};
    } catch (const instinfer::device_error& e) {
      return {type::device_error, 0, e.what()};
    } catch (const std::bad_alloc&) {
      return {type::out_of_memory, 0, "out of memory"};
    } catch (const std::exception& e) {
      return {type::other, 0, e.what()};
    } catch (...) {
      return {type::other, 0, "an exception that is no std::exception"};
    }
  }

  // Throws the same type, with the rank in front of the message. A type that the library does not
  // have becomes instinfer::error.
  [[noreturn]] void rethrow(int rank) const {
    const std::string what = "rank " + std::to_string(rank) + ": " + text;
    switch (kind) {
      case type::bad_argument:
        throw instinfer::bad_argument(what);
      case type::unknown_sequence:
        throw instinfer::unknown_sequence(what);
      case type::drive_full:
        throw instinfer::drive_full(what);
      case type::address_overflow:
        throw instinfer::address_overflow(what);
      case type::bad_file:
        throw instinfer::bad_file(what);
      case type::io_error:
        throw instinfer::io_error(what, static_cast<int>(detail));
      case type::page_damaged:
        throw instinfer::page_damaged(what, static_cast<page_id>(detail));
      case type::no_device:
        throw instinfer::no_device(what);
      case type::device_error:
        throw instinfer::device_error(what);
      case type::out_of_memory:
        throw rank_out_of_memory(what);
      case type::none:
      case type::other:
        break;
    }
    throw error(what);
  }

  void put_to(message& to) const {
    to.put(kind);
    to.put(detail);
    to.put_text(text);
  }
  static failure take_from(message& from) {
    failure f;
    f.kind = from.take<type>();
    f.detail = from.take<std::int64_t>();
    f.text = from.take_text();
    return f;
  }
};

}  // namespace instinfer::cluster
