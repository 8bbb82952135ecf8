#define INSTINFER_TEST_COMPILES_ATTENDS
#include "shared_attends.hpp"

INSTINFER_TEST_ARITHMETICS(template)
INSTINFER_TEST_ATTENDS(template, cpu::path)
