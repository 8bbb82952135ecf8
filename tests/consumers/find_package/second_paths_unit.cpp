// Includes the same headers again: a function that lacks `inline` would now be defined twice.
#include <instinfer/cpu.hpp>
#include <instinfer/reference.hpp>

int second_unit();
int second_unit() { return 0; }
