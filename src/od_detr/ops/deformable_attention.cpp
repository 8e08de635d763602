// Multi-scale deformable attention on the CPU, forward and backward, behind a plain C interface.
//
// value     [batch, tokens, heads, channels]          the levels' maps, flattened one after the other
// locations [batch, queries, heads, levels, points, 2] (x, y) in [0, 1] of each level's map
// weights   [batch, queries, heads, levels, points]
// output    [batch, queries, heads, channels]
//
// Work is cut into items that write to disjoint memory and are each done by one thread in a fixed order, so the
// result does not depend on the number of threads. Threads live for one call: nothing survives to be broken by fork.
// A location that is far outside, infinite or NaN never leads to a read outside of the maps; NaN gives NaN.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <system_error>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kQueriesPerItem = 64;
constexpr int64_t kFlopsPerThread = 1 << 20;  // about the price of starting a thread, several times over

struct Problem {
    int64_t batch, tokens, heads, channels, queries, levels, points, threads;
    const int64_t* shapes;  // height, width of each level

    explicit Problem(const int64_t* sizes)
        : batch(sizes[0]), tokens(sizes[1]), heads(sizes[2]), channels(sizes[3]), queries(sizes[4]),
          levels(sizes[5]), points(sizes[6]), threads(sizes[7]), shapes(sizes + 8) {}

    int64_t samples() const { return levels * points; }
};

template <typename Work>
void in_parallel(const Problem& problem, int64_t items, const Work& work) {
    std::atomic<int64_t> next{0};
    const auto labour = [&] {
        auto worker = work();
        for (int64_t item; (item = next.fetch_add(1)) < items;) worker(item);
    };
    const int64_t flops =
        8 * problem.batch * problem.queries * problem.heads * problem.samples() * problem.channels;
    const int64_t threads = std::min({problem.threads, items, 1 + flops / kFlopsPerThread});
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < threads; ++i) others.emplace_back(labour);
    } catch (const std::system_error&) {
        // The system gives no more threads: those we have, this one among them, do all the items.
    }
    labour();
    for (auto& other : others) other.join();
}

// NaN gives `low`: a comparison with it is false.
template <typename T>
inline T clamp(T number, T low, T high) {
    number = number > low ? number : low;
    return number < high ? number : high;
}

// 1 where a whole number is an index of `size` cells, 0 where not.
template <typename T>
inline T within(T number, T size) {
    return (number >= T(0) ? T(1) : T(0)) * (number < size ? T(1) : T(0));
}

// `Width` neighbouring channels, in vectors that the compiler maps to the machine's registers.
template <typename T, int Width>
struct Channels {
    static constexpr int kLanes = Width % 8 == 0 ? 8 : Width % 4 == 0 ? 4 : 1;
    static constexpr int kVectors = Width / kLanes;
    typedef T Lanes __attribute__((vector_size(kLanes * sizeof(T))));

    Lanes vectors[kVectors] = {};

    static Lanes load(const T* from) {
        Lanes lanes;
        std::memcpy(&lanes, from, sizeof(lanes));
        return lanes;
    }
    static void store(const Lanes& lanes, T* to) { std::memcpy(to, &lanes, sizeof(lanes)); }

    static Channels read(const T* from) {
        Channels channels;
        for (int i = 0; i < kVectors; ++i) channels.vectors[i] = load(from + i * kLanes);
        return channels;
    }
    void write(T* to) const {
        for (int i = 0; i < kVectors; ++i) store(vectors[i], to + i * kLanes);
    }
    void add(const Channels& other) {
        for (int i = 0; i < kVectors; ++i) vectors[i] += other.vectors[i];
    }
    void add(T share, const T* row) {
        for (int i = 0; i < kVectors; ++i) vectors[i] += share * load(row + i * kLanes);
    }
    void add_to(T* row, T share) const {
        for (int i = 0; i < kVectors; ++i) store(load(row + i * kLanes) + share * vectors[i], row + i * kLanes);
    }
    // The inner product with a row, still to be summed over the lanes.
    Lanes product(const T* row) const {
        Lanes sum = vectors[0] * load(row);
        for (int i = 1; i < kVectors; ++i) sum += vectors[i] * load(row + i * kLanes);
        return sum;
    }
};

// Cuts the channels into blocks of a width the compiler knows: one if `Fixed`, else of 16, 4 and 1.
template <int Fixed, typename Run>
inline void in_blocks(int64_t channels, const Run& run) {
    if constexpr (Fixed > 0) {
        run(std::integral_constant<int, Fixed>(), 0);
    } else {
        int64_t first = 0;
        for (; first + 16 <= channels; first += 16) run(std::integral_constant<int, 16>(), first);
        for (; first + 4 <= channels; first += 4) run(std::integral_constant<int, 4>(), first);
        for (; first < channels; ++first) run(std::integral_constant<int, 1>(), first);
    }
}

// The four cells around each sampling point of one query and head, and how much of each is taken.
// Arrays over the samples (levels x points), so that the compiler vectorises the arithmetic.
template <typename T>
struct Samples {
    int64_t count;
    std::vector<T> width, height;                             // of the sample's level
    std::vector<int32_t> start;                               // first token of the sample's level
    std::vector<int32_t> cells;                               // [4, count]: top left and right, bottom left and right
    std::vector<T> shares;                                    // [4, count]: bilinear share x attention weight
    std::vector<T> left, right, top, bottom;                  // shares along one axis, 0 outside of the map
    std::vector<T> has_left, has_right, has_top, has_bottom;  // 1 inside, 0 outside
    std::vector<T> terms;                                     // [4, count, lanes]: of the inner products
    std::vector<T> products;                                  // [4, count]: <grad_output, value of the corner>

    explicit Samples(const Problem& problem) : count(problem.samples()) {
        int64_t token = 0;
        for (int64_t level = 0; level < problem.levels; ++level) {
            const int64_t h = problem.shapes[2 * level], w = problem.shapes[2 * level + 1];
            width.insert(width.end(), problem.points, T(w));
            height.insert(height.end(), problem.points, T(h));
            start.insert(start.end(), problem.points, int32_t(token));
            token += h * w;
        }
        cells.resize(4 * count);
        terms.resize(4 * count * 8);
        for (auto* array : {&shares, &products}) array->resize(4 * count);
        for (auto* array : {&left, &right, &top, &bottom, &has_left, &has_right, &has_top, &has_bottom})
            array->resize(count);
    }

    void locate(const T* __restrict locations, const T* __restrict weights) {
        const int64_t n = count;
        const T *__restrict wide = width.data(), *__restrict high = height.data();
        const int32_t* __restrict first = start.data();
        int32_t* __restrict cell = cells.data();
        T* __restrict share = shares.data();
        T *__restrict l = left.data(), *__restrict r = right.data();
        T *__restrict t = top.data(), *__restrict b = bottom.data();
        T *__restrict hl = has_left.data(), *__restrict hr = has_right.data();
        T *__restrict ht = has_top.data(), *__restrict hb = has_bottom.data();
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            const T w = wide[i], h = high[i];
            const T raw_x = locations[2 * i] * w - T(0.5), raw_y = locations[2 * i + 1] * h - T(0.5);
            const T x = clamp(raw_x, T(-2), w), y = clamp(raw_y, T(-2), h);  // beyond, no corner is inside
            const T x0 = std::floor(x), y0 = std::floor(y), x1 = x0 + T(1), y1 = y0 + T(1);
            hl[i] = within(x0, w);
            hr[i] = within(x1, w);
            ht[i] = within(y0, h);
            hb[i] = within(y1, h);
            l[i] = hl[i] * (x1 - x);
            r[i] = hr[i] * (x - x0);
            t[i] = ht[i] * (y1 - y);
            b[i] = hb[i] * (y - y0);
            // A corner outside of the map reads the nearest cell inside, with no share.
            const int32_t column0 = int32_t(clamp(x0, T(0), w - 1)), column1 = int32_t(clamp(x1, T(0), w - 1));
            const int32_t row0 = first[i] + int32_t(clamp(y0, T(0), h - 1)) * int32_t(w);
            const int32_t row1 = first[i] + int32_t(clamp(y1, T(0), h - 1)) * int32_t(w);
            cell[i] = row0 + column0;
            cell[n + i] = row0 + column1;
            cell[2 * n + i] = row1 + column0;
            cell[3 * n + i] = row1 + column1;
            const T weight = weights[i] + T(0) * (raw_x + raw_y);  // NaN if the location is not finite
            share[i] = t[i] * l[i] * weight;
            share[n + i] = t[i] * r[i] * weight;
            share[2 * n + i] = b[i] * l[i] * weight;
            share[3 * n + i] = b[i] * r[i] * weight;
        }
    }

    // Sums the shares of `Width` channels. Four corners at a time, so that additions overlap.
    template <int Width>
    void gather(const T* maps, int64_t stride, T* output) const {
        Channels<T, Width> sum;
        for (int64_t i = 0; i < count; ++i) {
            Channels<T, Width> sample;
            for (int64_t corner = i; corner < 4 * count; corner += count)
                sample.add(shares[corner], maps + cells[corner] * stride);
            sum.add(sample);
        }
        sum.write(output);
    }

    // The transpose of `gather`, and these channels' part of `products`.
    template <int Width>
    void scatter(const T* maps, int64_t stride, const T* grad_output, T* grad_maps) {
        constexpr int lanes = Channels<T, Width>::kLanes;
        const auto grad = Channels<T, Width>::read(grad_output);
        T *__restrict term = terms.data(), *__restrict product = products.data();
        for (int64_t i = 0; i < 4 * count; ++i) {
            const int64_t place = cells[i] * stride;
            Channels<T, Width>::store(grad.product(maps + place), term + i * lanes);
            grad.add_to(grad_maps + place, shares[i]);
        }
#pragma omp simd
        for (int64_t i = 0; i < 4 * count; ++i)
            for (int lane = 0; lane < lanes; ++lane) product[i] += term[i * lanes + lane];
    }

    void differentiate(const T* __restrict weights, T* __restrict grad_locations, T* __restrict grad_weights) const {
        const int64_t n = count;
        const T *wide = width.data(), *high = height.data(), *product = products.data();
        const T *l = left.data(), *r = right.data(), *t = top.data(), *b = bottom.data();
        const T *hl = has_left.data(), *hr = has_right.data(), *ht = has_top.data(), *hb = has_bottom.data();
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            const T p00 = product[i], p01 = product[n + i], p10 = product[2 * n + i], p11 = product[3 * n + i];
            const T along_x = t[i] * (hr[i] * p01 - hl[i] * p00) + b[i] * (hr[i] * p11 - hl[i] * p10);
            const T along_y = l[i] * (hb[i] * p10 - ht[i] * p00) + r[i] * (hb[i] * p11 - ht[i] * p01);
            grad_locations[2 * i] = along_x * wide[i] * weights[i];
            grad_locations[2 * i + 1] = along_y * high[i] * weights[i];
            grad_weights[i] = t[i] * (l[i] * p00 + r[i] * p01) + b[i] * (l[i] * p10 + r[i] * p11);
        }
    }
};

// `Fixed` channels known to the compiler, or 0 for any number.
template <typename T, int Fixed>
void forward(const Problem& problem, const T* value, const T* locations, const T* weights, T* output) {
    const int64_t channels = problem.channels, heads = problem.heads, stride = heads * channels;
    const int64_t blocks = (problem.queries + kQueriesPerItem - 1) / kQueriesPerItem;
    in_parallel(problem, problem.batch * blocks, [&] {
        return [&, samples = Samples<T>(problem)](int64_t item) mutable {
            const int64_t image = item / blocks, first = item % blocks * kQueriesPerItem;
            const int64_t last = std::min(first + kQueriesPerItem, problem.queries);
            for (int64_t query = first; query < last; ++query) {
                for (int64_t head = 0; head < heads; ++head) {
                    const int64_t row = (image * problem.queries + query) * heads + head;
                    const T* maps = value + image * problem.tokens * stride + head * channels;
                    samples.locate(locations + 2 * row * samples.count, weights + row * samples.count);
                    in_blocks<Fixed>(channels, [&](auto width, int64_t channel) {
                        samples.template gather<width()>(maps + channel, stride, output + row * channels + channel);
                    });
                }
            }
        };
    });
}

// `grad_value` comes in as zeros. One item is one image and head: no two items add to the same cell.
template <typename T, int Fixed>
void backward(const Problem& problem, const T* value, const T* locations, const T* weights, const T* grad_output,
              T* grad_value, T* grad_locations, T* grad_weights) {
    const int64_t channels = problem.channels, heads = problem.heads, stride = heads * channels;
    in_parallel(problem, problem.batch * heads, [&] {
        return [&, samples = Samples<T>(problem)](int64_t item) mutable {
            const int64_t image = item / heads, head = item % heads;
            const int64_t maps = image * problem.tokens * stride + head * channels;
            for (int64_t query = 0; query < problem.queries; ++query) {
                const int64_t row = (image * problem.queries + query) * heads + head, from = row * samples.count;
                samples.locate(locations + 2 * from, weights + from);
                std::fill(samples.products.begin(), samples.products.end(), T(0));
                in_blocks<Fixed>(channels, [&](auto width, int64_t channel) {
                    samples.template scatter<width()>(value + maps + channel, stride,
                                                      grad_output + row * channels + channel,
                                                      grad_value + maps + channel);
                });
                samples.differentiate(weights + from, grad_locations + 2 * from, grad_weights + from);
            }
        };
    });
}

// Calls `run` with the number of channels as a compile-time constant where the size is a usual one.
template <typename Run>
void specialised(int64_t channels, const Run& run) {
    switch (channels) {
        case 8: return run(std::integral_constant<int, 8>());
        case 12: return run(std::integral_constant<int, 12>());
        case 16: return run(std::integral_constant<int, 16>());
        case 24: return run(std::integral_constant<int, 24>());
        case 32: return run(std::integral_constant<int, 32>());
        case 64: return run(std::integral_constant<int, 64>());
        default: return run(std::integral_constant<int, 0>());
    }
}

}  // namespace

extern "C" {

void forward_float32(const int64_t* sizes, const float* value, const float* locations, const float* weights,
                     float* output) {
    const Problem problem(sizes);
    specialised(problem.channels,
                [&](auto fixed) { forward<float, fixed()>(problem, value, locations, weights, output); });
}

void backward_float32(const int64_t* sizes, const float* value, const float* locations, const float* weights,
                      const float* grad_output, float* grad_value, float* grad_locations, float* grad_weights) {
    const Problem problem(sizes);
    specialised(problem.channels, [&](auto fixed) {
        backward<float, fixed()>(problem, value, locations, weights, grad_output, grad_value, grad_locations,
                                 grad_weights);
    });
}

void forward_float64(const int64_t* sizes, const double* value, const double* locations, const double* weights,
                     double* output) {
    forward<double, 0>(Problem(sizes), value, locations, weights, output);
}

void backward_float64(const int64_t* sizes, const double* value, const double* locations, const double* weights,
                      const double* grad_output, double* grad_value, double* grad_locations, double* grad_weights) {
    backward<double, 0>(Problem(sizes), value, locations, weights, grad_output, grad_value, grad_locations,
                        grad_weights);
}
}
