#define INSTINFER_TEST_COMPILES_TIMELINES
#include "shared_timelines.hpp"

INSTINFER_TEST_TIMELINES(template)
