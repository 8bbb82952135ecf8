#pragma once
// Standard streams over a message: what is written to one rank's can be read from another's.

#include <array>
#include <cstring>
#include <istream>
#include <ostream>
#include <streambuf>
#include <string_view>

#include "instinfer/cluster/message.hpp"

namespace instinfer::cluster {

// Puts its bytes as texts, small writes together. Nothing else may be put before flush(). Throws
// std::bad_alloc where the message finds no memory.
class message_writer : public std::ostream {
 public:
  explicit message_writer(message& to) : std::ostream{nullptr}, bytes_{to} {
    rdbuf(&bytes_);
    exceptions(badbit);  // those of the message; otherwise a stream keeps them to itself
  }

 private:
  class buffer : public std::streambuf {
   public:
    explicit buffer(message& to) : message_{to} { empty(); }

   private:
    std::streamsize xsputn(const char* bytes, std::streamsize n) override {
      if (n > epptr() - pptr()) {
        sync();
      }
      if (n > epptr() - pptr()) {
        message_.put_text({bytes, static_cast<std::size_t>(n)});
      } else if (n > 0) {
        std::memcpy(pptr(), bytes, static_cast<std::size_t>(n));
        pbump(static_cast<int>(n));
      }
      return n;
    }
    int_type overflow(int_type c) override {
      sync();
      if (!traits_type::eq_int_type(c, traits_type::eof())) {
        *pptr() = traits_type::to_char_type(c);
        pbump(1);
      }
      return traits_type::not_eof(c);
    }
    int sync() override {
      if (pptr() > pbase()) {
        message_.put_text({pbase(), static_cast<std::size_t>(pptr() - pbase())});
        empty();
      }
      return 0;
    }
    void empty() { setp(small_.data(), small_.data() + small_.size()); }

    message& message_;
    std::array<char, 4096> small_;
  };
  buffer bytes_;
};

// Takes the texts to the end of the message.
class message_reader : public std::istream {
 public:
  explicit message_reader(message& from) : std::istream{nullptr}, bytes_{from} { rdbuf(&bytes_); }

 private:
  class buffer : public std::streambuf {
   public:
    explicit buffer(message& from) : message_{from} {}

   private:
    int_type underflow() override {
      const std::string_view text = message_.ends() ? std::string_view{} : message_.take_text();
      char* at = const_cast<char*>(text.data());  // a streambuf never writes to what it reads
      setg(at, at, at + text.size());
      return text.empty() ? traits_type::eof() : traits_type::to_int_type(text.front());
    }

    message& message_;
  };
  buffer bytes_;
};

}  // namespace instinfer::cluster
