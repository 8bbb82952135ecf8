#include <instinfer/cpu.hpp>
#include <instinfer/reference.hpp>

int second_unit();

int main() { return second_unit(); }
