/* levels: how urgent work is that comes from outside and has not begun.
 *
 * 0 comes first, PLAIT_LEVEL_NORMAL is in the middle. Design: docs/design/sched.md
 */
#ifndef PLAIT_LEVELS_H
#define PLAIT_LEVELS_H

#ifndef PLAIT_LEVELS
#define PLAIT_LEVELS 5
#endif
#define PLAIT_LEVEL_NORMAL (PLAIT_LEVELS / 2)

#endif
