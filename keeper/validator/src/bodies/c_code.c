/* What C code does to frames, compiled twice: with optimisation and without. */

#include <alloca.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))

static jmp_buf out;

/* Frames whose size is known only when they run. */
static NOINLINE int dynamic(int n) {
    char *block = alloca(16 * n + 1);
    int array[n];
    memset(block, n, 16 * n + 1);
    for (int i = 0; i < n; i++)
        array[i] = block[i] * i;
    return n > 1 ? array[n - 1] + dynamic(n - 1) : array[0];
}

/* A leaf with more variables than there are registers. */
static NOINLINE long many(long a, long b, long c, long d, long e, long f, long g, long h) {
    long x = a * b, y = c * d, z = e * f, w = g * h;
    for (int i = 0; i < 3; i++) {
        x += y ^ a; y += z ^ b; z += w ^ c; w += x ^ d;
        a += b; c += d; e += f; g += h;
    }
    return x + y + z + w + a + c + e + g;
}

/* Arguments in registers, saved to the frame. */
static NOINLINE int sum(int n, ...) {
    va_list list;
    int total = 0;
    va_start(list, n);
    while (n--)
        total += va_arg(list, int);
    va_end(list);
    return total;
}

/* A stack aligned to more than the ABI has it. */
static NOINLINE int aligned(int n) {
    char room[n] __attribute__((aligned(64)));
    memset(room, n, n);
    return room[n / 2];
}

/* The same with a dynamic part: GCC keeps the address of the arguments in R10, and its CFA and the
   rule of RBP are expressions. */
static NOINLINE int aligned_dynamic(int n) {
    _Alignas(64) char room[64];
    char *block = alloca(n);
    memset(room, n, 64);
    memset(block, n, n);
    return room[n / 2] + block[n / 2] + sum(2, n, n);
}

/* A register saved on one way only. */
static NOINLINE int early(const char *text) {
    if (!text)
        return -1;
    size_t length = strlen(text);
    char copy[length + 1];
    strcpy(copy, text);
    return atoi(copy) + (int)strlen(copy);
}

static int compare(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

static NOINLINE void jump_out(int n) {
    if (n == 0)
        longjmp(out, 1);
    jump_out(n - 1);
    sum(1, n);
}

int C_CODE(int n) {
    int values[] = {5, 3, 9, 1, n};
    char text[64];
    qsort(values, 5, sizeof *values, compare);
    int length = snprintf(text, sizeof text, "%d %8.3f %s", values[0], n / 3.0, "text");
    volatile int total = dynamic(n) + sum(8, 1, 2, 3, 4, 5, 6, 7, n) + aligned(n + 40) + aligned_dynamic(n + 9)
        + early(NULL) + early(text) + length + (int)many(1, 2, 3, 4, 5, 6, 7, n);
    if (setjmp(out) == 0)
        jump_out(3);
    return total;
}
