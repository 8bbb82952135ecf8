#pragma once
// Reads pages of a file into GPU memory by DMA, past the host's page cache: GPUDirect Storage by
// cuFile. <cufile.h> must be on the include path, and programs link -lcufile. This was compiled,
// but never run.

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <utility>

#include <cufile.h>

#include "instinfer/cuda/launch/device.cuh"

namespace instinfer::cuda {

// One file, open for reading. The first file opens the driver, which closes with the process:
// cuFile counts its users.
class direct_file {
 public:
  // Throws bad_file where the file cannot be opened for direct reads, device_error where cuFile
  // refuses it.
  explicit direct_file(const std::string& path) : path_{path} {
    check_file(cuFileDriverOpen().err, "cuFileDriverOpen");
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_DIRECT);
    require<bad_file>(descriptor_ >= 0,
                      [&] { return path + ": cannot be opened for direct reads (O_DIRECT)"; });
    CUfileDescr_t description{};
    description.handle.fd = descriptor_;
    description.type = CU_FILE_HANDLE_TYPE_OPAQUE_FD;
    if (const CUfileError_t e = cuFileHandleRegister(&handle_, &description);
        e.err != CU_FILE_SUCCESS) {
      ::close(descriptor_);
      check_file(e.err, "cuFileHandleRegister");
    }
  }
  direct_file(const direct_file&) = delete;
  direct_file& operator=(const direct_file&) = delete;
  ~direct_file() {
    cuFileHandleDeregister(handle_);
    ::close(descriptor_);
  }

  // Reads bytes [at, at + bytes) of the file to `to` + offset. All are 4 KiB aligned, as pages are.
  // Throws bad_file where the file is shorter, device_error where the transfer fails; the contents
  // of `to` are then undefined.
  void read(const array<std::byte>& to, std::size_t offset, std::size_t bytes,
            std::uint64_t at) const {
    require(offset <= to.size() && bytes <= to.size() - offset, [&] {
      return path_ + ": read of " + std::to_string(bytes) + " bytes to offset " +
             std::to_string(offset) + " of an array of " + std::to_string(to.size());
    });
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t n = cuFileRead(handle_, to.data(), bytes - done, static_cast<off_t>(at + done),
                                   static_cast<off_t>(offset + done));
      require<device_error>(
          n >= 0, [&] { return path_ + ": cuFileRead failed with " + std::to_string(n); });
      require<bad_file>(n > 0, [&] {
        return path_ + ": ends at " + std::to_string(at + done) + ", expected " +
               std::to_string(at + bytes) + " bytes";
      });
      done += static_cast<std::size_t>(n);
    }
  }

 private:
  static void check_file(CUfileOpError status, const char* call) {
    require<device_error>(status == CU_FILE_SUCCESS, [&] {
      return std::string("cuFile: ") + call + ": " + cufileop_status_error(status);
    });
  }

  std::string path_;
  int descriptor_ = -1;
  CUfileHandle_t handle_ = nullptr;
};

}  // namespace instinfer::cuda
