// Gradient descent on DUFMs, squared error or cross-entropy, each member on one thread and inside its cache; where
// there are more threads than members, a team of them takes the steps of each.
//
// Weights, velocities and the sums that move them are of type W, products and all that samples have are of type T: the
// same, or double and float for frozen features ("mixed"; a copy of the weights is then rounded once per step).
//
// Built once per machine by descent_native.py. Members never wait for each other, and within a member the samples pass
// in chunks through all layers forward and back before the next chunk is touched, so activations live in L1/L2 only.
#include <atomic>

#include "kernels/layers.hpp"
#include "kernels/linear.hpp"

namespace {

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

}  // namespace

extern "C" {
// All tensors are row-major with padded rows; see `padded`.
struct Problem {
    Shape shape;
    Index steps, shared_features, threads;
    Index nonnegative;           // features are clamped at 0 after every step
    const Index* chosen;         // of the members, those that descend
    Index num_chosen;
    void* features;              // (S, N, d_1), or (N, d_1) where shared
    void* feature_velocity;      // (S, N, d_1)
    void* const* weights;        // L times (S, d_{l+1}, d_l)
    void* const* velocities;     // like the weights
    const double* lr;            // (S,)
    const double* weight_decay;  // (S, L)
    const double* feature_decay; // (S,), null where the features are frozen
    double momentum;             // velocities may be null where it is zero
};
}

namespace {

template <class T>
T* at(void* base, Index offset) {
    return base ? static_cast<T*>(base) + offset : nullptr;
}

// Of a step of one member, roughly.
Index multiply_adds(const Shape& shape) {
    Index sum = 0;
    for (Index l = 0; l < shape.depth; ++l) sum += 3 * shape.widths[l] * shape.widths[l + 1];
    return sum * shape.samples;
}

constexpr Index WORTH_A_TEAM = 300'000;  // multiply-adds of a step: below, threads would wait longer than they work

// Whether weights are multiplied first; the same for any number of threads. Squared error keeps the rounding that its
// published numbers have.
bool weights_first(const Problem& problem) {
    const Shape& shape = problem.shape;
    if (!shape.cross_entropy || !problem.feature_decay || (shape.relu && shape.depth > 1)) return false;
    if (shape.depth == 1) return multiply_adds(shape) < WORTH_A_TEAM;
    const Index classes = shape.widths[shape.depth];
    Index sum = 3 * shape.samples * shape.widths[0] * classes;
    for (Index l = 0; l + 1 < shape.depth; ++l) sum += 3 * classes * shape.widths[l] * shape.widths[l + 1];
    return 2 * sum < multiply_adds(shape);
}

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
class Member : Layers<T, W> {
    using Base = Layers<T, W>;
    using typename Base::Rows;
    using typename Base::V;
    using Base::block_, Base::features_, Base::gradients_, Base::shape_, Base::weights_;
    using Base::into_below, Base::stride, Base::weight_gradient, Base::width;

public:
    Member(const Problem& problem, Index member, Index threads)
        : Base(problem.shape, CHUNK_ROWS * threads, threads > 1),
          problem_(problem), frozen_(problem.feature_decay == nullptr), parts_(threads > 1 ? 2 * threads : 1) {
        const Index depth = shape_.depth, samples = shape_.samples;
        features_ = at<T>(problem.features, problem.shared_features ? 0 : member * samples * stride(0));
        feature_velocity_ = at<T>(problem.feature_velocity, member * samples * stride(0));
        if (!frozen_) feature_rule_.emplace_back(problem.lr[member], problem.feature_decay[member], problem.momentum);
        for (Index l = 0; l < depth; ++l) {
            const Index size = width(l + 1) * padded<W>(width(l));
            weights_.push_back(at<W>(problem.weights[l], member * size));
            velocities_.push_back(at<W>(problem.velocities ? problem.velocities[l] : nullptr, member * size));
            rules_.emplace_back(problem.lr[member], problem.weight_decay[member * depth + l], problem.momentum);
        }
        if (parts_ > 1 && !frozen_) feature_gradients_.emplace_back(samples * stride(0));
        for (Index l = 0; l < depth; ++l) this->prepare(l, 0, width(l + 1));
    }

    void run() {
        for (Index step = 0; step < problem_.steps; ++step) {
            for (Index row = 0; row < shape_.samples; row += block_) {
                const Rows rows{row, 0, std::min(block_, shape_.samples - row)};
                this->forward(rows);
                this->output_gradient(rows);
                for (Index l = shape_.depth - 1; l >= 0; --l) {
                    weight_gradient(l, rows, 0, width(l + 1));
                    if (l > 0) this->gradient_below(l, rows);
                    else if (!frozen_) into_below(0, rows, feature_step(rows));
                }
            }
            for (Index l = 0; l < shape_.depth; ++l) move_weight(l, 0, width(l + 1));
        }
    }

    Index most_pieces() const { return shape_.depth * parts_; }

    // The same steps to the bit, by a team. Samples are cut into parts for the way forward and back, and the rows of
    // weights for their gradients, which are summed in the order of above. Features that all these gradients need are
    // moved when the next step begins.
    void run(Team::Worker& team) {
        for (Index step = 0; step <= problem_.steps; ++step) {
            const bool last = step == problem_.steps;
            if (last && frozen_) return;
            for (Index row = 0; row < shape_.samples; row += block_) {
                const Index count = std::min(block_, shape_.samples - row);
                team.phase(parts_, [&](Index part) {
                    const Index at = cut(count, part), end = cut(count, part + 1);
                    if (at == end) return;
                    const Rows rows{row, at, end - at};
                    if (!frozen_ && step) move_features(rows);
                    if (last) return;
                    this->forward(rows);
                    this->output_gradient(rows);
                    for (Index l = shape_.depth - 1; l > 0; --l) this->gradient_below(l, rows);
                    if (!frozen_) into_below(0, rows, feature_gradient(rows));
                });
                if (last) continue;
                team.phase(most_pieces(), [&](Index piece) {
                    const Index l = piece % shape_.depth, part = piece / shape_.depth;
                    const Index from = cut(width(l + 1), part), to = cut(width(l + 1), part + 1);
                    if (from == to) return;
                    for (Index at = 0; at < count; at += CHUNK_ROWS)
                        weight_gradient(l, {row, at, std::min(CHUNK_ROWS, count - at)}, from, to);
                    if (row + block_ >= shape_.samples) move_weight(l, from, to);
                });
            }
        }
    }

private:
    // Where the parts of so many rows begin, in whole tiles.
    Index cut(Index rows, Index part) const {
        return part == parts_ ? rows : std::min(rows, (rows * part / parts_ + TILE_ROWS / 2) / TILE_ROWS * TILE_ROWS);
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
        this->prepare(l, first, end);
    }

    const Problem& problem_;
    const bool frozen_;
    const Index parts_;
    T* feature_velocity_;
    std::vector<W*> velocities_;
    std::vector<Buffer<T>> feature_gradients_;
    std::vector<Rule<W>> rules_;
    std::vector<Rule<T>> feature_rule_;
};

// A member whose weights are multiplied first; its features lie in columns while it descends.
template <class T>
class LinearMember : LinearLayers<T> {
    using Base = LinearLayers<T>;
    using V = typename Vector<T>::type;

public:
    LinearMember(const Problem& problem, Index member)
        : Base(problem.shape),
          problem_(problem),
          rule_(problem.lr[member], problem.feature_decay[member], problem.momentum),
          columns_(this->size()),
          column_velocity_(problem.feature_velocity ? this->size() : 0) {
        const Shape& shape = problem.shape;
        const Index size = shape.samples * padded<T>(shape.widths[0]);
        features_ = at<T>(problem.features, member * size);
        velocity_ = at<T>(problem.feature_velocity, member * size);
        for (Index l = 0; l < shape.depth; ++l) {
            const Index size = shape.widths[l + 1] * padded<T>(shape.widths[l]);
            weights_.push_back(at<T>(problem.weights[l], member * size));
            velocities_.push_back(at<T>(problem.velocities ? problem.velocities[l] : nullptr, member * size));
            rules_.emplace_back(problem.lr[member], problem.weight_decay[member * shape.depth + l], problem.momentum);
        }
    }

    void run() {
        const Index width = problem_.shape.widths[0];
        this->into_columns(features_, width, columns_);
        if (velocity_) this->into_columns(velocity_, width, column_velocity_);
        T* columns = columns_;
        T* velocity = velocity_ ? (T*)column_velocity_ : nullptr;
        const auto move_features = [=, rule = rule_, clip = problem_.nonnegative](Index offset, V sum) {
            V& here = *reinterpret_cast<V*>(columns + offset);
            rule.apply(here, velocity ? reinterpret_cast<V*>(velocity + offset) : nullptr, sum);
            if (clip) here = here < 0 ? V{} : here;
        };
        const auto move_weight = [this](Index l, Index offset, V sum) {
            T* velocity = velocities_[l];
            rules_[l].apply(*reinterpret_cast<V*>(weights_[l] + offset),
                            velocity ? reinterpret_cast<V*>(velocity + offset) : nullptr, sum);
        };
        for (Index step = 0; step < problem_.steps; ++step)
            this->template pass<false>(columns, weights_, move_features, move_weight);
        this->into_rows(columns, width, features_);
        if (velocity_) this->into_rows(velocity, width, velocity_);
    }

private:
    const Problem& problem_;
    const Rule<T> rule_;
    Buffer<T> columns_, column_velocity_;
    T* features_;
    T* velocity_;
    std::vector<T*> weights_, velocities_;
    std::vector<Rule<T>> rules_;
};

template <class T, class W>
void descend(const Problem& problem) {
    constexpr bool exact = std::is_same_v<T, double> && std::is_same_v<T, W>;  // others are not worth their compilation
    const bool first = exact && weights_first(problem);
    const Index team = first ? 1 : std::min(problem.threads / problem.num_chosen, problem.shape.samples / TILE_ROWS);
    if (team > 1 && multiply_adds(problem.shape) >= WORTH_A_TEAM) {
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
        for (Index place; (place = next++) < problem.num_chosen;) {
            if constexpr (exact)
                if (first) {
                    LinearMember<T>(problem, problem.chosen[place]).run();
                    continue;
                }
            Member<T, W>(problem, problem.chosen[place], 1).run();
        }
    });
}

}  // namespace

extern "C" {
void descend_float32(const Problem* problem) { descend<float, float>(*problem); }
void descend_float64(const Problem* problem) { descend<double, double>(*problem); }
void descend_mixed(const Problem* problem) { descend<float, double>(*problem); }
}
