/* Codes that every core function returns.
 *
 * 0 is success. A negative code is an error: something broke or was asked wrongly. A positive code
 * is an outcome: the call worked and this is its ordinary answer (nothing there, too late, closed).
 * The core never touches errno or Python's error state; the binding translates in one function.
 */
#ifndef PLAIT_ERROR_H
#define PLAIT_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#define PLAIT_ERRORS(X)                                                                            \
    X(NOMEM, -1, "out of memory")                                                                  \
    X(INVALID, -2, "invalid argument")                                                             \
    X(SYSTEM, -3, "the operating system refused")                                                  \
    X(CORRUPT, -4, "malformed data")                                                               \
    X(TOO_BIG, -5, "larger than the format or the region allows")                                  \
    X(DEPTH, -6, "nested too deeply")                                                              \
    X(UNSUPPORTED, -7, "not supported here")

#define PLAIT_OUTCOMES(X)                                                                          \
    X(EMPTY, 1, "nothing there")                                                                   \
    X(FULL, 2, "no room")                                                                          \
    X(TIMEOUT, 3, "the deadline passed")                                                           \
    X(CLOSED, 4, "closed")                                                                         \
    X(INTERRUPTED, 5, "a signal arrived")                                                          \
    X(RETRY, 6, "lost a race, try again")

enum {
    PLAIT_OK = 0,
#define PLAIT__DEFINE(name, code, text) PLAIT_##name = code,
    PLAIT_ERRORS(PLAIT__DEFINE) PLAIT_OUTCOMES(PLAIT__DEFINE)
#undef PLAIT__DEFINE
};

/* The English text of a code, never NULL. Any thread, does not block; the string is static. */
const char *plait_error_text(int code);

#ifdef __cplusplus
}
#endif
#endif
