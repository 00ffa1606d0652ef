// The least of ||mu_k||^2 / 2 - <z, mu_k> over very many classes k, and how near the next one comes, by products in
// float32: what native_nearest.py calls for a block of rows z.
//
// Scores never leave the registers: a matrix of them is as large as rows x classes, and writing it and looking through
// it again takes as long as a quarter of the product. Means lie in panels of two vectors of classes, width x PANEL each.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "../../runtime/pieces.h"

namespace {

using pieces::Index;

#if defined(__AVX512F__)
constexpr Index BYTES = 64, TILE_ROWS = 8;
#elif defined(__AVX__)
constexpr Index BYTES = 32, TILE_ROWS = 6;
#else
constexpr Index BYTES = 16, TILE_ROWS = 6;
#endif
constexpr Index LANES = BYTES / sizeof(float), VECTORS = 2, PANEL = LANES * VECTORS;
constexpr Index BLOCK_ROWS = 16 * TILE_ROWS;  // that a panel is used for while it is in the cache

typedef float Floats __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef std::int32_t Places __attribute__((vector_size(BYTES)));

// Of one row, lane by lane: the two least scores, and in which vector of classes the least one was.
struct Found {
    Floats least, second;
    Places place;

    void look_at(Floats scores, std::int32_t where) {
        const auto nearer = scores < least;
        second = nearer ? least : (scores < second ? scores : second);
        place = nearer ? Places{} + where : place;
        least = nearer ? scores : least;
    }
};

template <Index ROWS>
inline void tile(const float* rows, const float* panel, const float* half, Index width, std::int32_t place,
                 Found* found) {
    Floats sum[ROWS][VECTORS] = {};
    for (Index k = 0; k < width; ++k) {
        const Floats first = *reinterpret_cast<const Floats*>(panel + k * PANEL);
        const Floats second = *reinterpret_cast<const Floats*>(panel + k * PANEL + LANES);
#pragma GCC unroll 8
        for (Index i = 0; i < ROWS; ++i) {
            const float left = rows[i * width + k];
            sum[i][0] += left * first;
            sum[i][1] += left * second;
        }
    }
#pragma GCC unroll 8
    for (Index i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
        for (Index j = 0; j < VECTORS; ++j)
            found[i].look_at(*reinterpret_cast<const Floats*>(half + j * LANES) - sum[i][j],
                             static_cast<std::int32_t>(place + j));
}

template <Index ROWS>
inline void strip(Index row, Index rows, const float* at, const float* panel, const float* half, Index width,
                  std::int32_t place, Found* found) {
    for (; row + ROWS <= rows; row += ROWS) tile<ROWS>(at + row * width, panel, half, width, place, found + row);
    if constexpr (ROWS > 1) strip<ROWS - 1>(row, rows, at, panel, half, width, place, found);
}

// Rows begin..end of all; of equally near classes any.
void search(const float* rows, Index begin, Index end, Index width, const float* panels, Index count, const float* half,
            float* least, float* second, Index* classes) {
    const Floats nothing = Floats{} + std::numeric_limits<float>::infinity();
    std::vector<Found> found(BLOCK_ROWS);
    for (Index row = begin; row < end; row += BLOCK_ROWS) {
        const Index block = std::min(BLOCK_ROWS, end - row);
        std::fill_n(found.begin(), block, Found{nothing, nothing, Places{}});
        for (Index panel = 0; panel < count; ++panel)
            strip<TILE_ROWS>(0, block, rows + row * width, panels + panel * width * PANEL, half + panel * PANEL, width,
                             static_cast<std::int32_t>(panel * VECTORS), found.data());
        for (Index i = 0; i < block; ++i) {
            Index best = 0;
            for (Index lane = 1; lane < LANES; ++lane)
                if (found[i].least[lane] < found[i].least[best]) best = lane;
            float next = found[i].second[best];
            for (Index lane = 0; lane < LANES; ++lane)
                if (lane != best) next = std::min(next, found[i].least[lane]);
            least[row + i] = found[i].least[best];
            second[row + i] = next;
            classes[row + i] = found[i].place[best] * LANES + best;
        }
    }
}

}  // namespace

extern "C" {

Index panel_of_means() { return PANEL; }

// rows (samples, width), panels (count, width, PANEL), half (count, PANEL), infinite for classes that do not count.
void nearest_means(const float* rows, Index samples, Index width, const float* panels, Index count, const float* half,
                   Index threads, float* least, float* second, Index* classes) {
    pieces::over(threads, threads, nullptr, [&](Index thread) {
        search(rows, samples * thread / threads, samples * (thread + 1) / threads, width, panels, count, half, least,
               second, classes);
    });
}
}
