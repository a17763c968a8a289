/* Training kernels of a convolution in int8: activations and errors [H][W][C], weights [K][FY][FX][C]. */
#ifndef KERNELS_H
#define KERNELS_H
#include <stdint.h>

struct conv {
    int channels, side, out, kernel, stride, pad, out_side, groups;
};

/* Results of 32 bits become int8: (sum * multiplier + half) >> shift, saturated, as TFLite's integer kernels do. */
struct scale {
    int32_t multiplier;
    int shift;
};

void forward(const struct conv *c, struct scale s, const int8_t *x, const int8_t *w, const int32_t *bias, int8_t *y,
             int16_t *columns);
void input_error(const struct conv *c, struct scale s, const int8_t *dy, const int8_t *w, int8_t *dx, int8_t *rotated,
                 int16_t *columns);
void weight_gradient(const struct conv *c, const int8_t *x, const int8_t *dy, int32_t *dw, int16_t *columns,
                     int16_t *errors);
/* master -= rate * gradient, rounded stochastically with xorshift32 */
void update(int16_t *master, const int8_t *gradient, int n, int rate, int shift, uint32_t *state);

#define KERNEL __attribute__((noinline))

static inline int8_t saturated(int32_t v) { return v > 127 ? 127 : v < -128 ? -128 : v; }

static inline int8_t requantized(int32_t sum, struct scale s) {
    int64_t product = (int64_t)sum * s.multiplier + ((int64_t)1 << (s.shift - 1));
    return saturated((int32_t)(product >> s.shift));
}

#endif
