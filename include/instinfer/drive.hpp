#pragma once
// Umbrella header of page stores on real drives. It needs Linux, and the standard library.

#include "instinfer/drive/drive_files.hpp"
#include "instinfer/instinfer.hpp"
