// Gradient descent on DUFMs, squared error or cross-entropy, each member on one thread and inside its cache; where
// there are more threads than members, a team of them takes the steps of each.
//
// Weights, velocities and the sums that move them are of type W, products and all that samples have are of type T: the
// same, or double and float for frozen features ("mixed"; a copy of the weights is then rounded once per step).
//
// Built once per machine by descent_native.py. Members never wait for each other, and within a member the samples pass
// in chunks through all layers forward and back before the next chunk is touched, so activations live in L1/L2 only.
// Every product is C = A B with B and C read and written along rows of whole vectors: tensors come with their rows
// zero-padded to whole cache lines (an odd number of them, so that columns do not fall into the same cache sets).
//
//   forward   A_{l+1} = sigma(A_l W_l^T)       B = W_l^T, transposed once per step
//   backward  G_l = (G_{l+1} W_l) * sigma'     B = W_l
//   factor    dW_l += G_{l+1}^T A_l            B = A_l; A is read down its columns
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>
#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace {

using Index = std::int64_t;

#if defined(__AVX512F__)
constexpr Index VECTOR_BYTES = 64, TILE_ROWS = 8;  // 16 sums + 2 of B in 32 registers
#elif defined(__AVX__)
constexpr Index VECTOR_BYTES = 32, TILE_ROWS = 6;  // 12 sums + 2 of B + 1 of A in 16 registers
#else
constexpr Index VECTOR_BYTES = 16, TILE_ROWS = 6;
#endif
constexpr Index CACHE_LINE = 64;
constexpr Index CHUNK_ROWS = 128;

template <class T>
struct Vector {
    typedef T type __attribute__((vector_size(VECTOR_BYTES), may_alias));
    static constexpr Index length = VECTOR_BYTES / sizeof(T);
};

// exp x = 2^n exp r with n = round(x / log 2), r = x - n log 2. The upper part of log 2 ends in zeros, so that n times
// it is exact; adding `magic` rounds x / log 2 to an integer that then stands in the low bits; the Taylor series of
// exp r for |r| <= 0.35 is cut where the rest is far below rounding. `lowest` is where 2^n would become subnormal.
template <class T>
struct Exponential;

template <>
struct Exponential<double> {
    typedef std::int64_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr double magic = 0x1.8p52, log2_upper = 0x1.62e42feep-1, log2_lower = 0x1.a39ef35793c76p-33;
    static constexpr double lowest = -708;
    static constexpr int bias = 1023, mantissa = 52, terms = 13;
};

template <>
struct Exponential<float> {
    typedef std::int32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr float magic = 0x1.8p23f, log2_upper = 0x1.63p-1f, log2_lower = -0x1.bd0106p-13f;
    static constexpr float lowest = -87;
    static constexpr int bias = 127, mantissa = 23, terms = 7;
};

// exp x for x <= 0, within 1 ulp; 0 below `lowest`, NaN for NaN.
template <class T>
inline typename Vector<T>::type exponential(typename Vector<T>::type x) {
    using V = typename Vector<T>::type;
    using E = Exponential<T>;
    const V bounded = x < E::lowest ? V{} + E::lowest : x;
    const V shifted = bounded * T(1.4426950408889634) + E::magic;
    const V n = shifted - E::magic;
    const V r = (bounded - n * E::log2_upper) - n * E::log2_lower;
    T factorial[E::terms + 1] = {1};
    for (int i = 1; i <= E::terms; ++i) factorial[i] = factorial[i - 1] * T(i);
    V series = V{} + 1 / factorial[E::terms];
#pragma GCC unroll 16
    for (int i = E::terms - 1; i >= 2; --i) series = series * r + 1 / factorial[i];
    typename E::Bits power;
    std::memcpy(&power, &shifted, sizeof power);
    power = (power + E::bias) << E::mantissa;
    V scale;
    std::memcpy(&scale, &power, sizeof scale);
    const V result = ((series * r) * r + r + T(1)) * scale;
    return x < E::lowest ? V{} : result;
}

// at[i] += sum[i], where what is summed may be wider than what is added.
inline void accumulate(float* at, Vector<float>::type sum) { *reinterpret_cast<Vector<float>::type*>(at) += sum; }
inline void accumulate(double* at, Vector<double>::type sum) { *reinterpret_cast<Vector<double>::type*>(at) += sum; }
inline void accumulate(double* at, Vector<float>::type sum) {
    typedef float Half __attribute__((vector_size(VECTOR_BYTES / 2)));
    Half halves[2];
    std::memcpy(halves, &sum, sizeof sum);
    for (int i = 0; i < 2; ++i) accumulate(at + i * Vector<double>::length,
                                           __builtin_convertvector(halves[i], Vector<double>::type));
}

// Rows of `width` numbers, padded to an odd number of cache lines.
template <class T>
Index padded(Index width) {
    const Index per_line = CACHE_LINE / sizeof(T);
    return ((width + per_line - 1) / per_line | 1) * per_line;
}

template <class T>
Index whole_vectors(Index width) {
    return (width + Vector<T>::length - 1) / Vector<T>::length * Vector<T>::length;
}

template <class T>
struct Operand {  // element (i, k) is data[i * row + k * column]
    const T* data;
    Index row, column;
};

// ROWS x VECTORS vectors of A B at (row, column), handed to `store(offset into C, sum)` while still in registers.
template <class T, Index ROWS, Index VECTORS, class Store>
inline void tile(Operand<T> a, const T* b, Index b_row, Index depth, Index offset, Index c_row, Store store) {
    using V = typename Vector<T>::type;
    V sum[ROWS][VECTORS] = {};
    for (Index k = 0; k < depth; ++k) {
        V right[VECTORS];
        for (Index j = 0; j < VECTORS; ++j)
            right[j] = *reinterpret_cast<const V*>(b + k * b_row + j * Vector<T>::length);
#pragma GCC unroll 8
        for (Index i = 0; i < ROWS; ++i) {
            const T left = a.data[i * a.row + k * a.column];
#pragma GCC unroll 2
            for (Index j = 0; j < VECTORS; ++j) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 8
    for (Index i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
        for (Index j = 0; j < VECTORS; ++j) store(offset + i * c_row + j * Vector<T>::length, sum[i][j]);
}

template <class T, Index ROWS, Index VECTORS, class Store>
inline void strip(Index row, Index rows, Operand<T> a, const T* b, Index b_row, Index depth, Index column, Index c_row,
                  Store store) {
    for (; row + ROWS <= rows; row += ROWS)
        tile<T, ROWS, VECTORS>({a.data + row * a.row, a.row, a.column}, b, b_row, depth, row * c_row + column, c_row,
                               store);
    if constexpr (ROWS > 1) strip<T, ROWS - 1, VECTORS>(row, rows, a, b, b_row, depth, column, c_row, store);
}

// C = A B, C (rows x columns), inner dimension `depth`; C is known to `store` alone.
template <class T, class Store>
void multiply(Index rows, Index columns, Index depth, Operand<T> a, const T* b, Index b_row, Index c_row, Store store) {
    constexpr Index length = Vector<T>::length;
    Index column = 0;
    for (; column + length < columns; column += 2 * length)
        strip<T, TILE_ROWS, 2>(0, rows, a, b + column, b_row, depth, column, c_row, store);
    if (column < columns) strip<T, TILE_ROWS, 1>(0, rows, a, b + column, b_row, depth, column, c_row, store);
}

struct Free {
    void operator()(void* pointer) const { std::free(pointer); }
};

// Threads that take the steps of one member together. All of them call `phase` with the same pieces of work in the same
// order; it returns once these are done. A thread begins with pieces of its own, which its cache knows, and goes on with
// those that nobody has begun: one that the system has put aside holds the others up for no more than a piece.
class Team {
public:
    explicit Team(Index threads, Index most_pieces) : threads_(threads), begun_(most_pieces) {}

    class Worker {
    public:
        Worker(Team& team, Index number) : team_(team), number_(number) {}

        template <class Work>
        void phase(Index pieces, Work work) {
            ++phase_;
            end_ += pieces;
            const Index first = pieces * number_ / team_.threads_;
            for (Index i = 0; i < pieces; ++i) {
                const Index piece = (first + i) % pieces;
                Index begun = team_.begun_[piece].load(std::memory_order_relaxed);
                if (begun >= phase_ || !team_.begun_[piece].compare_exchange_strong(begun, phase_)) continue;
                work(piece);
                team_.done_.fetch_add(1, std::memory_order_release);
            }
            for (int turn = 0; team_.done_.load(std::memory_order_acquire) < end_; ++turn)
                if (turn < PATIENCE) pause();
                else std::this_thread::yield();
        }

    private:
        static constexpr int PATIENCE = 2000;
        static void pause() {
#if defined(__SSE__)
            _mm_pause();
#endif
        }

        Team& team_;
        Index number_, phase_ = 0, end_ = 0;
    };

private:
    Index threads_;
    std::vector<std::atomic<Index>> begun_;  // the phase in which each piece was last begun
    alignas(CACHE_LINE) std::atomic<Index> done_{0};
};

template <class T>
class Buffer {
public:
    explicit Buffer(Index size) {
        const std::size_t bytes = (size * sizeof(T) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
        data_.reset(static_cast<T*>(std::aligned_alloc(CACHE_LINE, bytes)));
        std::fill_n(data_.get(), size, T(0));
    }
    operator T*() const { return data_.get(); }

private:
    std::unique_ptr<T, Free> data_;
};

}  // namespace

extern "C" {
// All tensors are row-major with padded rows; see `padded`.
struct Problem {
    Index steps, samples, depth, relu, shared_features, threads;
    Index cross_entropy;         // or else the squared error
    Index nonnegative;           // features are clamped at 0 after every step
    const Index* chosen;         // of the members, those that descend
    Index num_chosen;
    const Index* widths;         // d_1..d_L, K
    void* features;              // (S, N, d_1), or (N, d_1) where shared
    void* feature_velocity;      // (S, N, d_1)
    void* const* weights;        // L times (S, d_{l+1}, d_l)
    void* const* velocities;     // like the weights
    const void* targets;         // (N, K)
    const double* lr;            // (S,)
    const double* weight_decay;  // (S, L)
    const double* feature_decay; // (S,), null where the features are frozen
    double momentum;             // velocities may be null where it is zero
};
}

namespace {

// Of a step of one member, roughly.
Index multiply_adds(const Problem& problem) {
    Index sum = 0;
    for (Index l = 0; l < problem.depth; ++l) sum += 3 * problem.widths[l] * problem.widths[l + 1];
    return sum * problem.samples;
}

constexpr Index WORTH_A_TEAM = 300'000;  // multiply-adds of a step: below, threads would wait longer than they work

// p <- p - lr (g + decay p), or the same through a velocity as torch.optim.SGD does it.
template <class T>
struct Rule {
    T lr, decay, keep, momentum;

    Rule(double lr, double decay, double momentum)
        : lr(T(lr)), decay(T(decay)), keep(T(1 - lr * decay)), momentum(T(momentum)) {}

    template <class V>
    void apply(V& parameter, V* velocity, V gradient) const {
        if (velocity) {
            *velocity = momentum * *velocity + gradient + decay * parameter;
            parameter -= lr * *velocity;
        } else {
            parameter = keep * parameter - lr * gradient;
        }
    }
};

template <class T, class W>
class Member {
    using V = typename Vector<T>::type;
    static constexpr bool mixed = !std::is_same_v<T, W>;

public:
    Member(const Problem& problem, Index member, Index threads)
        : problem_(problem), frozen_(problem.feature_decay == nullptr), parts_(threads > 1 ? 2 * threads : 1) {
        const Index depth = problem.depth, samples = problem.samples;
        block_ = std::min(samples, CHUNK_ROWS * threads);
        features_ = at<T>(problem.features, problem.shared_features ? 0 : member * samples * stride(0));
        feature_velocity_ = at<T>(problem.feature_velocity, member * samples * stride(0));
        if (!frozen_) feature_rule_.emplace_back(problem.lr[member], problem.feature_decay[member], problem.momentum);
        Index widest = 0;
        for (Index l = 0; l < depth; ++l) {
            const Index size = width(l + 1) * padded<W>(width(l));
            weights_.push_back(at<W>(problem.weights[l], member * size));
            velocities_.push_back(at<W>(problem.velocities ? problem.velocities[l] : nullptr, member * size));
            transposed_.emplace_back(width(l) * stride(l + 1));
            gradients_.emplace_back(width(l + 1) * stride(l));
            if constexpr (mixed) rounded_.emplace_back(width(l + 1) * stride(l));
            hidden_.emplace_back(block_ * stride(l + 1));
            rules_.emplace_back(problem.lr[member], problem.weight_decay[member * depth + l], problem.momentum);
            widest = std::max({widest, stride(l), stride(l + 1)});
        }
        for (Index l = 0; l < (parts_ > 1 ? depth : 2); ++l) below_.emplace_back(block_ * widest);
        if (parts_ > 1 && !frozen_) feature_gradients_.emplace_back(samples * stride(0));
        for (Index l = 0; l < depth; ++l) prepare(l, 0, width(l + 1));
    }

    void run() {
        for (Index step = 0; step < problem_.steps; ++step) {
            for (Index row = 0; row < problem_.samples; row += block_) {
                const Rows rows{row, 0, std::min(block_, problem_.samples - row)};
                forward(rows);
                output_gradient(rows);
                for (Index l = problem_.depth - 1; l >= 0; --l) {
                    weight_gradient(l, rows, 0, width(l + 1));
                    if (l > 0) gradient_below(l, rows);
                    else if (!frozen_) into_below(0, rows, feature_step(rows));
                }
            }
            for (Index l = 0; l < problem_.depth; ++l) move_weight(l, 0, width(l + 1));
        }
    }

    Index most_pieces() const { return problem_.depth * parts_; }

    // The same steps to the bit, by a team. Samples are cut into parts for the way forward and back, and the rows of
    // weights for their gradients, which are summed in the order of above. Features that all these gradients need are
    // moved when the next step begins.
    void run(Team::Worker& team) {
        for (Index step = 0; step <= problem_.steps; ++step) {
            const bool last = step == problem_.steps;
            if (last && frozen_) return;
            for (Index row = 0; row < problem_.samples; row += block_) {
                const Index count = std::min(block_, problem_.samples - row);
                team.phase(parts_, [&](Index part) {
                    const Index at = cut(count, part), end = cut(count, part + 1);
                    if (at == end) return;
                    const Rows rows{row, at, end - at};
                    if (!frozen_ && step) move_features(rows);
                    if (last) return;
                    forward(rows);
                    output_gradient(rows);
                    for (Index l = problem_.depth - 1; l > 0; --l) gradient_below(l, rows);
                    if (!frozen_) into_below(0, rows, feature_gradient(rows));
                });
                if (last) continue;
                team.phase(most_pieces(), [&](Index piece) {
                    const Index l = piece % problem_.depth, part = piece / problem_.depth;
                    const Index from = cut(width(l + 1), part), to = cut(width(l + 1), part + 1);
                    if (from == to) return;
                    for (Index at = 0; at < count; at += CHUNK_ROWS)
                        weight_gradient(l, {row, at, std::min(CHUNK_ROWS, count - at)}, from, to);
                    if (row + block_ >= problem_.samples) move_weight(l, from, to);
                });
            }
        }
    }

private:
    // Samples first + at, ... of which the block that begins at `first` holds what layers put out.
    struct Rows {
        Index first, at, count;
    };

    // Where the parts of so many rows begin, in whole tiles.
    Index cut(Index rows, Index part) const {
        return part == parts_ ? rows : std::min(rows, (rows * part / parts_ + TILE_ROWS / 2) / TILE_ROWS * TILE_ROWS);
    }
    template <class U>
    static U* at(void* base, Index offset) {
        return base ? static_cast<U*>(base) + offset : nullptr;
    }
    Index width(Index l) const { return problem_.widths[l]; }
    Index stride(Index l) const { return padded<T>(problem_.widths[l]); }
    // What enters W_{l+1} (indices count from zero here).
    T* input(Index l, Rows rows) {
        return l == 0 ? features_ + (rows.first + rows.at) * stride(0) : hidden_[l - 1] + rows.at * stride(l);
    }
    // The gradient of what comes out of it.
    const T* above(Index l, Rows rows) {
        return (l + 1 == problem_.depth ? hidden_[l] : below(l + 1)) + rows.at * stride(l + 1);
    }
    Buffer<T>& below(Index l) { return below_[parts_ > 1 ? l : l % 2]; }

    // W_{l+1} as it is multiplied.
    const T* factor(Index l) const {
        if constexpr (mixed) return rounded_[l];
        else return weights_[l];
    }

    // Some rows of a weight as products want them, and no gradient yet.
    void prepare(Index l, Index first, Index rows) {
        const Index columns = width(l), from = stride(l), to = stride(l + 1);
        if constexpr (mixed)
            for (Index i = first; i < rows; ++i)
                std::copy_n(weights_[l] + i * padded<W>(columns), columns, rounded_[l] + i * from);
        const T* weight = factor(l);
        T* transposed = transposed_[l];
        constexpr Index block = 8;
        Index i = first;
        for (; i + block <= rows; i += block)
            for (Index j = 0; j < columns; ++j)
                for (Index k = 0; k < block; ++k) transposed[j * to + i + k] = weight[(i + k) * from + j];
        for (; i < rows; ++i)
            for (Index j = 0; j < columns; ++j) transposed[j * to + i] = weight[i * from + j];
        std::fill_n(gradients_[l] + first * from, (rows - first) * from, W(0));
    }

    void forward(Rows rows) {
        for (Index l = 0; l < problem_.depth; ++l) {
            T* out = hidden_[l] + rows.at * stride(l + 1);
            const bool clip = problem_.relu && l + 1 < problem_.depth;
            multiply<T>(rows.count, whole_vectors<T>(width(l + 1)), width(l), {input(l, rows), stride(l), 1},
                        transposed_[l], stride(l + 1), stride(l + 1), [=](Index offset, V sum) {
                            *reinterpret_cast<V*>(out + offset) = clip ? (sum < 0 ? V{} : sum) : sum;
                        });
        }
    }

    void output_gradient(Rows rows) {
        const Index row = stride(problem_.depth), length = rows.count * row;
        const T* target = static_cast<const T*>(problem_.targets) + (rows.first + rows.at) * row;
        T* output = hidden_[problem_.depth - 1] + rows.at * row;
        const T scale = T(1) / T(problem_.samples);
        if (problem_.cross_entropy) {
            for (Index i = 0; i < length; i += row) softmax_gradient(output + i, target + i, scale);
            return;
        }
        for (Index i = 0; i < length; ++i) output[i] = (output[i] - target[i]) * scale;
    }

    // z <- (softmax(z) - target) scale of one sample; the padding stays zero.
    void softmax_gradient(T* z, const T* target, T scale) const {
        const Index classes = width(problem_.depth), whole = whole_vectors<T>(classes);
        T highest = z[0], sum = 0;
        for (Index k = 1; k < classes; ++k) highest = std::max(highest, z[k]);
        for (Index k = 0; k < whole; k += Vector<T>::length) {
            V& here = *reinterpret_cast<V*>(z + k);
            here = exponential<T>(here - highest);
        }
        for (Index k = 0; k < classes; ++k) sum += z[k];
        for (Index k = 0; k < whole; k += Vector<T>::length) {
            V& here = *reinterpret_cast<V*>(z + k);
            here = (here / sum - *reinterpret_cast<const V*>(target + k)) * scale;
        }
        std::fill(z + classes, z + whole, T(0));
    }

    // Of what these samples enter W_{l+1} with, to rows from..to of its gradient.
    void weight_gradient(Index l, Rows rows, Index from, Index to) {
        W* gradient = gradients_[l] + from * stride(l);
        multiply<T>(to - from, whole_vectors<T>(width(l)), rows.count, {above(l, rows) + from, 1, stride(l + 1)},
                    input(l, rows), stride(l), stride(l),
                    [=](Index offset, V sum) { accumulate(gradient + offset, sum); });
    }

    template <class Store>
    void into_below(Index l, Rows rows, Store store) {
        multiply<T>(rows.count, whole_vectors<T>(width(l)), width(l + 1), {above(l, rows), stride(l + 1), 1}, factor(l),
                    stride(l), stride(l), store);
    }

    void gradient_below(Index l, Rows rows) {
        T* out = below(l) + rows.at * stride(l);
        const T* in = input(l, rows);
        if (problem_.relu)
            into_below(l, rows, [=](Index offset, V sum) {
                *reinterpret_cast<V*>(out + offset) = *reinterpret_cast<const V*>(in + offset) > 0 ? sum : V{};
            });
        else
            into_below(l, rows, [=](Index offset, V sum) { *reinterpret_cast<V*>(out + offset) = sum; });
    }

    // What moves features at an offset from these rows, given their gradient.
    auto feature_step(Rows rows) {
        const Index begin = (rows.first + rows.at) * stride(0);
        T* feature = features_ + begin;
        T* velocity = feature_velocity_ ? feature_velocity_ + begin : nullptr;
        return [feature, velocity, rule = feature_rule_[0], clip = problem_.nonnegative](Index offset, V sum) {
            V& here = *reinterpret_cast<V*>(feature + offset);
            rule.apply(here, velocity ? reinterpret_cast<V*>(velocity + offset) : nullptr, sum);
            if (clip) here = here < 0 ? V{} : here;
        };
    }

    auto feature_gradient(Rows rows) {
        T* gradient = feature_gradients_[0] + (rows.first + rows.at) * stride(0);
        return [gradient](Index offset, V sum) { *reinterpret_cast<V*>(gradient + offset) = sum; };
    }

    void move_features(Rows rows) {
        const T* gradient = feature_gradients_[0] + (rows.first + rows.at) * stride(0);
        const auto step = feature_step(rows);
        for (Index i = 0; i < rows.count; ++i)
            for (Index j = i * stride(0); j < i * stride(0) + width(0); j += Vector<T>::length)
                step(j, *reinterpret_cast<const V*>(gradient + j));
    }

    void move_weight(Index l, Index first, Index end) {
        using Wide = typename Vector<W>::type;
        const Index columns = width(l), from = stride(l), to = padded<W>(columns);
        for (Index i = first; i < end; ++i)
            for (Index j = 0; j < columns; j += Vector<W>::length)
                rules_[l].apply(*reinterpret_cast<Wide*>(weights_[l] + i * to + j),
                                velocities_[l] ? reinterpret_cast<Wide*>(velocities_[l] + i * to + j) : nullptr,
                                *reinterpret_cast<const Wide*>(gradients_[l] + i * from + j));
        prepare(l, first, end);
    }

    const Problem& problem_;
    const bool frozen_;
    const Index parts_;
    Index block_;
    T* features_;
    T* feature_velocity_;
    std::vector<W*> weights_, velocities_;
    std::vector<Buffer<T>> transposed_, rounded_, hidden_, below_, feature_gradients_;
    std::vector<Buffer<W>> gradients_;
    std::vector<Rule<W>> rules_;
    std::vector<Rule<T>> feature_rule_;
};

// While one lives, subnormal numbers are zero: members decaying towards zero would otherwise crawl through them, a
// hundred times slower.
class Flushed {
#if defined(__SSE__)
public:
    Flushed() { _mm_setcsr(mode_ | 0x8040); }
    ~Flushed() { _mm_setcsr(mode_); }

private:
    const unsigned mode_ = _mm_getcsr();
#endif
};

template <class Work>
void on_threads(Index threads, Work work) {
    std::vector<std::thread> others;
    for (Index i = 1; i < threads; ++i) others.emplace_back(work, i);
    work(0);
    for (auto& thread : others) thread.join();
}

template <class T, class W>
void descend(const Problem& problem) {
    const Index team = std::min(problem.threads / problem.num_chosen, problem.samples / TILE_ROWS);
    if (team > 1 && multiply_adds(problem) >= WORTH_A_TEAM) {
        std::vector<std::unique_ptr<Member<T, W>>> members;
        std::vector<std::unique_ptr<Team>> teams;
        for (Index i = 0; i < problem.num_chosen; ++i) {
            members.push_back(std::make_unique<Member<T, W>>(problem, problem.chosen[i], team));
            teams.push_back(std::make_unique<Team>(team, members[i]->most_pieces()));
        }
        on_threads(team * problem.num_chosen, [&](Index thread) {
            const Flushed flushed;
            Team::Worker worker(*teams[thread / team], thread % team);
            members[thread / team]->run(worker);
        });
        return;
    }
    std::atomic<Index> next{0};
    on_threads(std::min(problem.threads, problem.num_chosen), [&](Index) {
        const Flushed flushed;
        for (Index place; (place = next++) < problem.num_chosen;)
            Member<T, W>(problem, problem.chosen[place], 1).run();
    });
}

}  // namespace

extern "C" {
void descend_float32(const Problem* problem) { descend<float, float>(*problem); }
void descend_float64(const Problem* problem) { descend<double, double>(*problem); }
void descend_mixed(const Problem* problem) { descend<float, double>(*problem); }
}
