// How many numbers of each sample are not zero: what counting.py calls for activations as they pass.
//
// One pass over memory, where PyTorch needs three and writes one of them.
#include <cstring>

#include "../runtime/pieces.h"

namespace {

using pieces::Index;

constexpr int LANES = 16;
constexpr Index BLOCK = 4096 * LANES;  // whose lanes cannot overflow
typedef float Floats __attribute__((vector_size(LANES * sizeof(float))));
typedef std::int32_t Ints __attribute__((vector_size(LANES * sizeof(std::int32_t))));

Index not_zero(const float* from, Index count) {
    Index found = 0, at = 0;
    while (at + LANES <= count) {
        const Index end = std::min(count - LANES + 1, at + BLOCK);
        Ints lanes = {};
        for (; at < end; at += LANES) {
            Floats value;
            std::memcpy(&value, from + at, sizeof(value));
            lanes -= (Ints)(value != 0.0f);  // a lane is -1 where it holds
        }
        for (int lane = 0; lane < LANES; ++lane) found += lanes[lane];
    }
    for (; at < count; ++at) found += from[at] != 0.0f;
    return found;
}

}  // namespace

extern "C" void count_not_zero(const float* from, Index samples, Index numbers, double* counts, Index threads,
                               pieces::Launch launch) {
    pieces::over(samples, threads, launch, [=](Index sample) {
        counts[sample] = double(not_zero(from + sample * numbers, numbers));
    });
}
