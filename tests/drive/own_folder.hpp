#pragma once
// A folder for the files of one test.

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace instinfer::test {

// A folder of the test's own, in the working directory.
class own_folder {
 public:
  own_folder() {
    std::string name = "drive-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) {
      throw std::runtime_error("no folder can be made here");
    }
    path_ = name;
  }
  own_folder(const own_folder&) = delete;
  own_folder& operator=(const own_folder&) = delete;
  ~own_folder() {
    clear();
    ::rmdir(path_.c_str());
  }

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    if (DIR* all = ::opendir(path_.c_str())) {
      while (const dirent* one = ::readdir(all)) {
        if (one->d_name[0] != '.') {
          names.emplace_back(one->d_name);
        }
      }
      ::closedir(all);
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  void clear() const {
    for (const std::string& name : files()) {
      ::unlink((*this / name).c_str());
    }
  }

 private:
  std::string path_;
};

}  // namespace instinfer::test
