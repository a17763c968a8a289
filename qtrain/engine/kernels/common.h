// What every kernel shares: rounding onto a grid, the noise hash, the largest magnitude seen, and the loops.
// The bits are those of qtrain/formats; compiled without contraction to fused multiply-adds, so that they stay so.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#ifdef _OPENMP
#include <omp.h>
#endif

// What a quantization point is and has learned, as qtrain.engine.library.Rule lays it out.
struct Rule {
    double low, high;  // range of the codes
    double amax;       // what the next exponent is taken from; not a number: nothing seen yet
    uint32_t stream;   // of the noise
    int32_t scale;     // a Scale
    int32_t is_signed, stochastic;
    int32_t whole;     // a parameter: looked at afresh, learning or not
};

// The order of qtrain.engine.library.SCALES.
enum Scale { DYNAMIC, DELAYED, MOVING_AVERAGE, STATIC };

// Elements from which waking other threads (about 5 us) is repaid.
constexpr int64_t PARALLEL_FROM = 1 << 15;

// How a tensor lies, as qtrain.engine.library.Place lays it out.
struct Place {
    const int64_t* rows;   // positions of the rows in the ungathered tensor; null: 0, 1, 2...
    const int32_t* index;  // logical index of each element of a row; null: as they lie
    int64_t n_rows, row_size;
    int64_t channels, plane;  // of a normalization's tensor, with whether channels lie last
    int32_t last, threads;
    int team() const { return n_rows * row_size >= PARALLEL_FROM ? threads : 1; }
};

// A point's grid for one tensor.
struct Grid {
    double inverse, step;  // 2^-exponent, 2^exponent
    double low, high;      // range of the codes
    double cap;            // largest value stored; infinite where there is none
    uint32_t key;          // of the noise
    bool stochastic;
};

// Largest |x| and largest positive x, as the bits of the float: integer order is float order, and a NaN comes out on top.
struct Peak {
    int64_t magnitude = 0, positive = 0;
    void join(const Peak& other) {
        if (other.magnitude > magnitude) magnitude = other.magnitude;
        if (other.positive > positive) positive = other.positive;
    }
};

template <class T> using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

template <class T> inline Bits<T> bits_of(T x) {
    Bits<T> b;
    std::memcpy(&b, &x, sizeof x);
    return b;
}

template <class T> inline Bits<T> magnitude_bits(T x) { return bits_of(x) & std::numeric_limits<Bits<T>>::max(); }

inline uint32_t mix(uint32_t x) {  // lowbias32, see qtrain/formats/noise.py
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ (x >> 16);
}

// The code of one number. Copied by value into the loops: through a pointer the compiler would not vectorise them.
template <class T, bool STOCHASTIC> struct Rounder {
    T inverse, step, low, high, cap;
    uint32_t key;
    explicit Rounder(const Grid& g)
        : inverse(T(g.inverse)), step(T(g.step)), low(T(g.low)), high(T(g.high)), cap(T(g.cap)), key(g.key) {}
    inline T code(T x, uint32_t position) const {
        T t = (x > cap ? cap : x) * inverse;
        if (STOCHASTIC) {
            const T size = std::fabs(t), whole = std::floor(size);
            const T fraction = (size - whole) * T(1 << 24);
            const T u = T(int32_t(mix(position ^ key) >> 8));
            t = std::copysign(whole + (u < fraction ? T(1) : T(0)), t);
        } else {
            t = std::nearbyint(t);
        }
        t = t < low ? low : t;
        return t > high ? high : t;
    }
};

// Runs body(begin, length, position, index) over all elements: position of the first in the logical order of the
// ungathered tensor, index (or null) of each within its row.
template <class Body> Peak sweep(const Place& p, Body body) {
    constexpr int64_t CHUNK = 1 << 14;
    const bool flat = !p.rows && !p.index;
    const int64_t total = p.n_rows * p.row_size;
    const int64_t pieces = flat ? (total + CHUNK - 1) / CHUNK : p.n_rows;
    Peak peak;
#pragma omp parallel num_threads(p.team())
    {
        Peak own;
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < pieces; ++i) {
            const int64_t begin = flat ? i * CHUNK : i * p.row_size;
            const int64_t length = flat ? (total - begin < CHUNK ? total - begin : CHUNK) : p.row_size;
            const int64_t position = flat ? begin : (p.rows ? p.rows[i] : i) * p.row_size;
            own.join(body(begin, length, uint32_t(position), p.index));
        }
#pragma omp critical
        peak.join(own);
    }
    return peak;
}

// The exponent rules of qtrain/layers/quantizer.py.
constexpr int MIN_EXPONENT = -100;  // formats/fixed.py
constexpr int REFUSED = std::numeric_limits<int32_t>::min();  // not finite
constexpr double MOVING_AVERAGE_DECAY = 0.9;

inline int exponent_for(double amax, double max_code) {
    if (amax == 0.0) return MIN_EXPONENT;
    int power, width;
    const double mantissa = std::frexp(amax, &power);
    std::frexp(max_code, &width);
    const int exponent = power - width + (std::ldexp(mantissa, width) > max_code);
    return exponent > MIN_EXPONENT ? exponent : MIN_EXPONENT;
}

// The maximum a scale is taken from; not a number if any element was.
template <class T> double seen(const Peak& peak, bool is_signed) {
    T both[2];
    const Bits<T> bits[2] = {Bits<T>(peak.magnitude), Bits<T>(peak.positive)};
    std::memcpy(both, bits, sizeof both);
    return is_signed || std::isnan(both[0]) ? both[0] : both[1];
}

// Quantizer.observe: the exponent for a tensor of that maximum, after learning from it if asked to.
inline int observe(Rule& r, double seen, bool learn, double cap) {
    if (!(seen < std::numeric_limits<double>::infinity())) return REFUSED;
    seen = seen < cap ? seen : cap;
    const bool fresh = std::isnan(r.amax);
    if (seen == 0.0) return exponent_for(fresh ? 0.0 : r.amax, r.high);
    double used = r.amax;
    if (fresh || r.scale == DYNAMIC) used = seen;
    else if (r.scale == MOVING_AVERAGE) used = MOVING_AVERAGE_DECAY * r.amax + (1 - MOVING_AVERAGE_DECAY) * seen;
    if (learn && (fresh || r.scale != STATIC)) r.amax = r.scale == MOVING_AVERAGE ? used : seen;
    return exponent_for(used, r.high);
}

inline Grid grid_of(const Rule& r, int exponent, uint32_t clock, double cap) {
    return {std::ldexp(1.0, -exponent), std::ldexp(1.0, exponent), r.low, r.high, cap, mix(r.stream ^ clock),
            bool(r.stochastic)};
}

// peak = run(grid) at the point's exponent, which learns from it; `clock` is the key of seed and step. A rule that needs
// this tensor's own maximum is first answered by peak_of(). Returns the exponent, or REFUSED.
template <class T, class Run, class PeakOf>
int by_pass(Rule& r, uint32_t clock, bool learn, double cap, Run run, PeakOf peak_of) {
    const bool looks = (learn || r.whole) && r.scale != DELAYED && r.scale != STATIC;
    const bool known = !std::isnan(r.amax) && !looks;
    const int exponent = known ? exponent_for(r.amax, r.high) : observe(r, seen<T>(peak_of(), r.is_signed), learn, cap);
    if (exponent == REFUSED) return REFUSED;
    const Peak peak = run(grid_of(r, exponent, clock, cap));
    const bool refused = known && learn && observe(r, seen<T>(peak, r.is_signed), learn, cap) == REFUSED;
    return refused ? REFUSED : exponent;
}
