#define INSTINFER_TEST_COMPILES_ATTENDS
#include "shared_attends.hpp"

INSTINFER_TEST_CHECKS(template)
INSTINFER_TEST_ATTENDS(template, reference::path)
