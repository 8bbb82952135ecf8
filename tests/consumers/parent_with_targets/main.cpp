#include <instinfer/cpu.hpp>
#include <instinfer/reference.hpp>

int main() { return instinfer::cpu::target_name() == nullptr ? 1 : 0; }
