/* assert: assertions in three tiers.
 *
 *   PLAIT_ASSERT_ALWAYS(x)     always on: cheap, and guards what would else corrupt memory
 *   PLAIT_ASSERT(x)            PLAIT_ASSERT_LEVEL 1: preconditions and local invariants
 *   PLAIT_ASSERT_EXPENSIVE(x)  PLAIT_ASSERT_LEVEL 2: walkers (plait_<unit>_is_valid)
 *
 * A failing one prints unit, file, line and expression, and aborts. They are for broken local
 * invariants: corrupt data from files or from other processes is an error code, not an assertion. A
 * source file may define PLAIT_UNIT as its unit's name before it includes this. Without
 * PLAIT_ASSERT_LEVEL it is 0 where NDEBUG is defined, else 1. An expression that is off is
 * compiled, but not evaluated.
 */
#ifndef PLAIT_CORE_ASSERT_H
#define PLAIT_CORE_ASSERT_H

#ifndef PLAIT_ASSERT_LEVEL
#ifdef NDEBUG
#define PLAIT_ASSERT_LEVEL 0
#else
#define PLAIT_ASSERT_LEVEL 1
#endif
#endif

#ifndef PLAIT_UNIT
#define PLAIT_UNIT "core"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Prints to standard error and aborts. Any thread. */
#if defined(__GNUC__)
__attribute__((noreturn, cold))
#endif
void plait__assert_failed(const char *unit, const char *file, int line, const char *expression);

#ifdef __cplusplus
}
#endif

#ifdef PLAIT_MODEL /* tests/model: the failure is shown with the history that led to it */
#define PLAIT_ASSERT_ALWAYS(x) RL_ASSERT(x)
#else
#define PLAIT_ASSERT_ALWAYS(x)                                                                     \
    ((x) ? (void)0 : plait__assert_failed(PLAIT_UNIT, __FILE__, __LINE__, #x))
#endif

#define PLAIT__ASSERT_OFF(x) ((void)sizeof((x) ? 1 : 0))

#if PLAIT_ASSERT_LEVEL >= 1
#define PLAIT_ASSERT(x) PLAIT_ASSERT_ALWAYS(x)
#else
#define PLAIT_ASSERT(x) PLAIT__ASSERT_OFF(x)
#endif

#if PLAIT_ASSERT_LEVEL >= 2
#define PLAIT_ASSERT_EXPENSIVE(x) PLAIT_ASSERT_ALWAYS(x)
#else
#define PLAIT_ASSERT_EXPENSIVE(x) PLAIT__ASSERT_OFF(x)
#endif

#endif
