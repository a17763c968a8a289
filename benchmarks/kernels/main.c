/* One pass of one shape on made-up data: CASE and PASS choose (see cases.py). Results are checked against a direct sum. */
#include "kernels.h"

#ifndef MARK
#define MARK(n) /* a target that counts by cycle defines where to tell */
#endif
#ifndef PASS
#define PASS 0
#endif

static volatile const struct conv shape = {CASE}; /* volatile: the kernels must not know it when they are compiled */
static int8_t x[16384], w[8192], dy[16384], y[16384], rotated[8192];
static int32_t bias[256], dw[8192];
static int16_t columns[65536], errors[16384], master[8192];
volatile uint32_t checksum;

static KERNEL void fill(int8_t *to, int n, uint32_t seed) {
    for (int i = 0; i < n; i++) to[i] = (int8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
}

int main(void) {
    struct conv c = shape;
    struct scale s = {1 << 20, 28};
    uint32_t state = 1, sum = 0;
    fill(x, sizeof x, 1);
    fill(w, sizeof w, 2);
    fill(dy, sizeof dy, 3);
    MARK(1);
    if (PASS == 0) forward(&c, s, x, w, bias, y, columns);
    if (PASS == 1) input_error(&c, s, dy, w, y, rotated, columns);
    if (PASS == 2) weight_gradient(&c, x, dy, dw, columns, errors);
    if (PASS == 3) update(master, x, c.out * (c.channels / c.groups) * c.kernel * c.kernel, 3, 6, &state);
    MARK(2);
    for (int i = 0; i < 16384; i++) sum = sum * 31 + (uint32_t)y[i];
    for (int i = 0; i < 8192; i++) sum = sum * 31 + (uint32_t)dw[i] + (uint32_t)master[i];
    checksum = sum;
    MARK(sum | 1u << 31);
    return 0;
}
