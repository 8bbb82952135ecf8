#pragma once
// Draws a program's JSON by running bench/charts. A program that draws works without Python: then
// there is only its JSON.

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

namespace instinfer::examples {

// Debian's matplotlib belongs to the system's Python, which need not be the first one in PATH.
inline const char* charts_python() {
  constexpr const char* systems = "/usr/bin/python3";
  return access(systems, X_OK) == 0 ? systems : "python3";
}

// Runs `python3 charts json picture`; charts is the folder bench/charts. Returns whether it drew.
// Where it did not, standard error says what is missing and which command draws later.
inline bool draw(const std::string& charts, const std::string& json, const std::string& picture) {
  std::fflush(nullptr);  // the script writes to the same terminal
  std::string words[] = {charts_python(), charts, json, picture};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), nullptr};
  pid_t child = 0;
  int status = 0;
  if (posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments, environ) != 0 ||
      waitpid(child, &status, 0) != child || (WIFEXITED(status) && WEXITSTATUS(status) == 127)) {
    std::fprintf(stderr,
                 "not drawn: there is no Python; with it and matplotlib, run  python3 %s %s %s\n",
                 charts.c_str(), json.c_str(), picture.c_str());
    return false;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace instinfer::examples
