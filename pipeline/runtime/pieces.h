// Pieces of work over threads, of the library that PyTorch runs its own with.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace pieces {

using Index = std::int64_t;
// OpenMP's entry, `pipeline.runtime.native.openmp`: runs a function on so many threads.
using Launch = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Calls work(piece) for each of them; a thread takes the next one that nobody has begun. Without `launch` threads are
// started anew.
template <class Work>
void over(Index count, Index threads, Launch launch, const Work& work) {
    struct Shared {
        std::atomic<Index> next;
        Index count;
        const Work& work;
    } shared{{0}, count, work};
    const auto run = [](void* pointer) {
        auto& own = *static_cast<Shared*>(pointer);
        for (Index piece; (piece = own.next.fetch_add(1, std::memory_order_relaxed)) < own.count;) own.work(piece);
    };
    threads = std::min(threads, count);
    if (threads <= 1) {
        run(&shared);
    } else if (launch) {
        launch(run, &shared, unsigned(threads), 0);
    } else {
        std::vector<std::thread> others;
        for (Index thread = 1; thread < threads; ++thread) others.emplace_back(run, &shared);
        run(&shared);
        for (auto& other : others) other.join();
    }
}

}  // namespace pieces
