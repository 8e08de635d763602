// Multi-scale deformable attention on the CPU, forward and backward, behind a plain C interface.
//
// value   [batch, tokens, heads, channels]            the levels' maps, flattened one after the other
// anchors [batch, queries, levels, coordinates]       points (x, y) or boxes (cx, cy, w, h) in [0, 1] of each map
// offsets [batch, queries, heads, levels, points, 2]  from the anchor: in cells, in a box in fractions of its half
// logits  [batch, queries, heads, levels, points]     their softmax over levels and points are the weights
// output  [batch, queries, heads, channels]
//
// With 0 coordinates there are no anchors: the offsets are the sampling locations and the logits the weights.
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

constexpr int kLanes = 8;                     // numbers in a vector: neighbouring channels, or queries side by side
constexpr int64_t kFlopsPerThread = 1 << 20;  // about the price of starting a thread, several times over

struct Problem {
    int64_t batch, tokens, heads, channels, queries, levels, points, coordinates, threads;
    const int64_t* shapes;  // height, width of each level

    explicit Problem(const int64_t* sizes)
        : batch(sizes[0]), tokens(sizes[1]), heads(sizes[2]), channels(sizes[3]), queries(sizes[4]),
          levels(sizes[5]), points(sizes[6]), coordinates(sizes[7]), threads(sizes[8]), shapes(sizes + 9) {}

    int64_t samples() const { return levels * points; }
    int64_t width() const { return (channels + kLanes - 1) / kLanes * kLanes; }  // channels in whole vectors
};

template <typename T>
struct Inputs {
    const T *value, *anchors, *offsets, *logits;
};

template <typename T>
struct Gradients {
    T *value, *anchors, *offsets, *logits;  // anchors [batch, queries, heads, levels, coordinates], or null
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

// Vectors that the compiler maps to the machine's registers.
template <typename T>
struct Vector {
    typedef T type __attribute__((vector_size(kLanes * sizeof(T))));
    typedef T half __attribute__((vector_size(kLanes * sizeof(T) / 2)));

    static type load(const T* from) {
        type lanes;
        std::memcpy(&lanes, from, sizeof(lanes));
        return lanes;
    }
    static void store(const type& lanes, T* to) { std::memcpy(to, &lanes, sizeof(lanes)); }
    // Half of the way to the sum over the lanes.
    static void store_folded(const type& lanes, T* to) {
        half low, high;
        std::memcpy(&low, &lanes, sizeof(low));
        std::memcpy(&high, reinterpret_cast<const char*>(&lanes) + sizeof(low), sizeof(high));
        low += high;
        std::memcpy(to, &low, sizeof(low));
    }
};

template <typename T>
using Lanes = typename Vector<T>::type;

// e to the power of numbers that are not positive, to 1.5 ulp (the polynomial is that of Cephes); 0 below -87.
inline Lanes<float> exponential(const Lanes<float>& x) {
    typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(uint32_t))));
    const Lanes<float> shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the low bits are the whole part
    const Lanes<float> whole = shifted - 12582912.0f;
    const Lanes<float> rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Lanes<float> sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * (rest * rest) + rest + 1.0f;
    Bits bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits << 23) + (127u << 23);
    Lanes<float> power;
    std::memcpy(&power, &bits, sizeof(power));
    return x < -87.0f ? Lanes<float>{} : sum * power;
}

inline Lanes<double> exponential(const Lanes<double>& x) {
    Lanes<double> powers;
    for (int lane = 0; lane < kLanes; ++lane) powers[lane] = std::exp(x[lane]);
    return powers;
}

// NaN gives `low`: a comparison with it is false.
template <typename T>
inline T clamp(T number, T low, T high) {
    number = number > low ? number : low;
    return number < high ? number : high;
}

// The maps of one image and head. Rows lie side by side, as the rows of all heads do not: strides of a power of two
// would share a few lines of the cache. They are filled up to whole vectors, and after the last comes one of zeros.
template <typename T>
struct Maps {
    struct alignas(64) Line {
        T numbers[64 / sizeof(T)];
    };
    const Problem& problem;
    std::vector<Line> lines;

    explicit Maps(const Problem& problem)
        : problem(problem), lines((problem.tokens + 1) * problem.width() * sizeof(T) / sizeof(Line) + 1) {}

    T* rows() { return lines.front().numbers; }
    void clear() { std::memset(lines.data(), 0, lines.size() * sizeof(Line)); }

    // The first channel of an image and head, in a tensor like `value`.
    int64_t place(int64_t image, int64_t head) const {
        return (image * problem.tokens * problem.heads + head) * problem.channels;
    }
    void pack(const T* from) {
        const int64_t channels = problem.channels, stride = problem.heads * channels, width = problem.width();
        for (int64_t token = 0; token < problem.tokens; ++token)
            std::copy_n(from + token * stride, channels, rows() + token * width);
    }
    void unpack(T* to) {
        const int64_t channels = problem.channels, stride = problem.heads * channels, width = problem.width();
        for (int64_t token = 0; token < problem.tokens; ++token)
            std::copy_n(rows() + token * width, channels, to + token * stride);
    }
};

// Neighbouring channels of one row.
template <typename T, int Vectors>
struct Channels {
    Lanes<T> vectors[Vectors] = {};

    static Channels read(const T* from) {
        Channels channels;
        for (int i = 0; i < Vectors; ++i) channels.vectors[i] = Vector<T>::load(from + i * kLanes);
        return channels;
    }
    void write(T* to) const {
        for (int i = 0; i < Vectors; ++i) Vector<T>::store(vectors[i], to + i * kLanes);
    }
    void add(const Channels& other) {
        for (int i = 0; i < Vectors; ++i) vectors[i] += other.vectors[i];
    }
    void add(T share, const T* row) {
        for (int i = 0; i < Vectors; ++i) vectors[i] += share * Vector<T>::load(row + i * kLanes);
    }
    void add_to(T* row, T share) const {
        for (int i = 0; i < Vectors; ++i)
            Vector<T>::store(Vector<T>::load(row + i * kLanes) + share * vectors[i], row + i * kLanes);
    }
    // The inner product with a row, still to be summed over the lanes.
    Lanes<T> product(const T* row) const {
        Lanes<T> sum = vectors[0] * Vector<T>::load(row);
        for (int i = 1; i < Vectors; ++i) sum += vectors[i] * Vector<T>::load(row + i * kLanes);
        return sum;
    }
};

// Cuts a row into pieces of as many vectors as the compiler knows: one if `Fixed`, else of 2 and 1.
template <int Fixed, typename Run>
inline void in_pieces(int64_t width, const Run& run) {
    if constexpr (Fixed > 0) {
        run(std::integral_constant<int, Fixed>(), 0);
    } else {
        int64_t first = 0;
        for (; first + 2 * kLanes <= width; first += 2 * kLanes) run(std::integral_constant<int, 2>(), first);
        if (first < width) run(std::integral_constant<int, 1>(), first);
    }
}

// The sampling points of `kLanes` queries of one head. Arrays are [samples, queries], so that all but the reading
// and writing is arithmetic on vectors of queries; those of the four corners (top left and right, bottom left and
// right of a point) are [4, samples, queries].
template <typename T>
struct Block {
    const Problem& problem;
    const int64_t samples, count;                            // count = samples x lanes
    std::vector<T> centre_x, centre_y, scale_x, scale_y;     // [levels, queries]: location = centre + offset * scale
    std::vector<T> x, y, weights, right, bottom;             // location, then the shares of the right and bottom cells
    std::vector<int32_t> cells;                              // of the corners, `tokens` (the zeros) outside of the map
    std::vector<T> shares, terms, products;                  // of the corners; products: <grad_output, value>
    std::vector<T> row;                                      // one query's channels

    explicit Block(const Problem& problem)
        : problem(problem), samples(problem.samples()), count(samples * kLanes), cells(4 * count),
          shares(4 * count), terms(4 * count * kLanes / 2), products(4 * count), row(problem.width()) {
        for (auto* array : {&centre_x, &centre_y}) array->assign(problem.levels * kLanes, T(0));
        for (auto* array : {&scale_x, &scale_y}) array->assign(problem.levels * kLanes, T(1));
        for (auto* array : {&x, &y, &weights, &right, &bottom}) array->resize(count);
    }

    // Places the queries from `first` on; past the last query, the last again.
    void place(const Inputs<T>& inputs, int64_t image, int64_t head, int64_t first) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t query = image * problem.queries + std::min(first + lane, problem.queries - 1);
            const T* offset = inputs.offsets + (query * problem.heads + head) * samples * 2;
            const T* logit = inputs.logits + (query * problem.heads + head) * samples;
            for (int64_t sample = 0; sample < samples; ++sample) {
                x[sample * kLanes + lane] = offset[2 * sample];
                y[sample * kLanes + lane] = offset[2 * sample + 1];
                weights[sample * kLanes + lane] = logit[sample];
            }
            if (problem.coordinates)
                anchor(inputs.anchors + query * problem.levels * problem.coordinates, lane);
        }
        if (problem.coordinates) softmax();
        int32_t token = 0;
        for (int64_t level = 0; level < problem.levels; ++level) {
            locate(level, token);
            token += int32_t(problem.shapes[2 * level] * problem.shapes[2 * level + 1]);
        }
    }

    // A box without an extent is a point.
    void anchor(const T* anchors, int lane) {
        for (int64_t level = 0; level < problem.levels; ++level) {
            const T *from = anchors + level * problem.coordinates, half = T(0.5) / T(problem.points);
            const int64_t i = level * kLanes + lane;
            const bool box = problem.coordinates == 4;
            centre_x[i] = from[0];
            centre_y[i] = from[1];
            scale_x[i] = box && from[2] > 0 ? from[2] * half : T(1) / T(problem.shapes[2 * level + 1]);
            scale_y[i] = box && from[3] > 0 ? from[3] * half : T(1) / T(problem.shapes[2 * level]);
        }
    }

    void softmax() {
        Lanes<T> highest = Lanes<T>{} - std::numeric_limits<T>::infinity(), sum = {};
        for (int64_t i = 0; i < count; i += kLanes) {
            const Lanes<T> logit = Vector<T>::load(&weights[i]);
            highest = logit > highest ? logit : highest;
        }
        for (int64_t i = 0; i < count; i += kLanes) {
            const Lanes<T> power = exponential(Vector<T>::load(&weights[i]) - highest);
            sum += power;
            Vector<T>::store(power, &weights[i]);
        }
        const Lanes<T> inverse = T(1) / sum;
        for (int64_t i = 0; i < count; i += kLanes)
            Vector<T>::store(Vector<T>::load(&weights[i]) * inverse, &weights[i]);
    }

    void locate(int64_t level, int32_t first) {
        const int32_t high = int32_t(problem.shapes[2 * level]), wide = int32_t(problem.shapes[2 * level + 1]);
        const int32_t zeros = int32_t(problem.tokens);
        const T h = T(high), w = T(wide);
        const T *cx = &centre_x[level * kLanes], *cy = &centre_y[level * kLanes];
        const T *sx = &scale_x[level * kLanes], *sy = &scale_y[level * kLanes];
        for (int64_t i = level * problem.points * kLanes; i < (level + 1) * problem.points * kLanes; i += kLanes) {
            const T *__restrict from_x = &x[i], *__restrict from_y = &y[i], *__restrict weight_of = &weights[i];
            T *__restrict to_right = &right[i], *__restrict to_bottom = &bottom[i], *__restrict share = &shares[i];
            int32_t* __restrict cell = &cells[i];
            const int64_t n = count;
#pragma omp simd
            for (int lane = 0; lane < kLanes; ++lane) {
                const T raw_x = (cx[lane] + from_x[lane] * sx[lane]) * w - T(0.5);
                const T raw_y = (cy[lane] + from_y[lane] * sy[lane]) * h - T(0.5);
                const T x = clamp(raw_x, T(-2), w), y = clamp(raw_y, T(-2), h);  // beyond, no corner is inside
                const T x0 = std::floor(x), y0 = std::floor(y), dx = x - x0, dy = y - y0;
                const int32_t column = int32_t(x0), row = int32_t(y0), here = first + row * wide + column;
                const bool is_left = column >= 0 & column < wide, is_right = column >= -1 & column + 1 < wide;
                const bool is_top = row >= 0 & row < high, is_bottom = row >= -1 & row + 1 < high;
                cell[lane] = is_top & is_left ? here : zeros;
                cell[n + lane] = is_top & is_right ? here + 1 : zeros;
                cell[2 * n + lane] = is_bottom & is_left ? here + wide : zeros;
                cell[3 * n + lane] = is_bottom & is_right ? here + wide + 1 : zeros;
                const T weight = weight_of[lane] + T(0) * (raw_x + raw_y);  // NaN if the location is not finite
                share[lane] = (1 - dy) * (1 - dx) * weight;
                share[n + lane] = (1 - dy) * dx * weight;
                share[2 * n + lane] = dy * (1 - dx) * weight;
                share[3 * n + lane] = dy * dx * weight;
                to_right[lane] = dx;
                to_bottom[lane] = dy;
            }
        }
    }

    // Sums the shares of a piece of the channels. Four corners at a time, so that additions overlap.
    template <int Vectors>
    void gather(const T* rows, int64_t width, int lane, T* output) const {
        Channels<T, Vectors> sum;
        for (int64_t i = lane; i < count; i += kLanes) {
            Channels<T, Vectors> sample;
            for (int64_t corner = i; corner < 4 * count; corner += count)
                sample.add(shares[corner], rows + cells[corner] * width);
            sum.add(sample);
        }
        sum.write(output);
    }

    // The transpose of `gather`, and half-summed terms of the inner products with the value.
    template <int Vectors>
    void scatter(const T* rows, T* grad_rows, int64_t width, int lane, const T* grad_output) {
        const auto grad = Channels<T, Vectors>::read(grad_output);
        for (int64_t i = lane; i < 4 * count; i += kLanes) {
            const int64_t place = cells[i] * width;
            Vector<T>::store_folded(grad.product(rows + place), &terms[i * kLanes / 2]);
            grad.add_to(grad_rows + place, shares[i]);
        }
    }

    void sum_terms() {
        const T* __restrict term = terms.data();
        T* __restrict product = products.data();
#pragma omp simd
        for (int64_t i = 0; i < 4 * count; ++i)
            product[i] += (term[4 * i] + term[4 * i + 1]) + (term[4 * i + 2] + term[4 * i + 3]);
    }
