#include <instinfer/instinfer.hpp>

int second_unit();

int main() { return second_unit(); }
