// Vectors of eight numbers, and what the kernels do with them: the first part of one translation unit.

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

constexpr int kLanes = 8;

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

// e to the power of numbers that are not positive, to 1.1 ulp (the polynomial is that of Cephes); 0 below -87.
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

inline bool is_index(int32_t number, int32_t size) { return uint32_t(number) < uint32_t(size); }

// NaN gives `low`: a comparison with it is false.
template <typename T>
inline T clamp(T number, T low, T high) {
    number = number > low ? number : low;
    return number < high ? number : high;
}

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

}  // namespace
