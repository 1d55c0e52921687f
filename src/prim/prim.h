/* prim: the operating system behind one contract.
 *
 * One folder per system implements it (linux/ first); nothing above this layer knows which system
 * it is on. Functions return 0 or a code of plait/error.h. They may be called from any thread
 * unless said otherwise. Times are nanoseconds of the monotonic clock; a deadline is absolute and
 * PLAIT_PRIM_FOREVER never comes.
 */
#ifndef PLAIT_PRIM_H
#define PLAIT_PRIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plait/error.h"

#define PLAIT_PRIM_FOREVER INT64_MAX
#define PLAIT_PRIM_CACHE_LINE 64

/* ---- time and processor ---- */

/* Nanoseconds since an arbitrary start, never running backwards. Does not block. */
int64_t plait_prim_now(void);

/* Hints to the processor that the caller spins. */
void plait_prim_relax(void);

/* Gives the rest of the caller's time slice away. */
void plait_prim_yield(void);

/* How many processors this process may use: the smallest of those online, the affinity mask, and
 * the cgroup (v1 or v2) quota rounded up; at least 1. Reads files; not for hot paths. */
int plait_prim_cpu_count(void);

size_t plait_prim_page_size(void);

/* ---- waiting on a word ---- */

/* Blocks while *word == expected, until woken, the deadline, or a signal.
 * PLAIT_OK: woken, or the word already differed, or spuriously: check your condition again.
 * PLAIT_TIMEOUT: the deadline passed. PLAIT_INTERRUPTED: a signal handler ran in this thread.
 * `shared`: the word lies in memory that several processes map. */
int plait_prim_wait(const volatile void *word, uint32_t expected, int64_t deadline, bool shared);

/* Wakes at most `count` threads that wait on the word (INT32_MAX: all). Does not block. */
void plait_prim_wake(const volatile void *word, int count, bool shared);

/* ---- threads ---- */

typedef struct plait_prim_thread {
    uintptr_t handle;
} plait_prim_thread_t;

/* Starts a thread with every asynchronous signal blocked, so that signals reach the threads that
 * the embedding program made. `name` (at most 15 bytes are shown) may be NULL. `stack_size` 0: the
 * system's default. The thread must be joined or detached. */
int plait_prim_thread_start(plait_prim_thread_t *thread, void (*main)(void *argument),
                            void *argument, const char *name, size_t stack_size);

/* Waits for the thread to end. Blocks; once per thread. */
void plait_prim_thread_join(plait_prim_thread_t thread);
void plait_prim_thread_detach(plait_prim_thread_t thread);

/* An identifier of the calling thread, unique among the living threads of the process; never 0. */
uint64_t plait_prim_thread_id(void);

/* ---- a mutual-exclusion lock of one word, for threads of one process; 0 is unlocked ---- */

typedef struct plait_prim_lock {
    uint32_t word; /* touched only by the functions below */
} plait_prim_lock_t;

void plait_prim_lock(plait_prim_lock_t *lock);
void plait_prim_unlock(plait_prim_lock_t *lock);

/* ---- maps of memory ---- */

typedef struct plait_prim_map {
    void *base;
    size_t size;      /* a multiple of the page size, but for drafts and what is sealed */
    int descriptor;   /* -1 for private memory */
    bool large_pages; /* a draft's: what was added last has such */
} plait_prim_map_t;

/* Reserves `size` bytes (rounded up) of zeroed memory, committed as it is touched. `shared`: backed
 * by a descriptor that a child process can map too. Owner: the caller, until
 * plait_prim_map_close. */
int plait_prim_map_create(plait_prim_map_t *map, size_t size, bool shared);

/* Maps another process's shared map by its descriptor, which the map then owns. */
int plait_prim_map_open(plait_prim_map_t *map, int descriptor, size_t size);

/* Gives the pages of [offset, offset + size) back to the system; they read as zero afterwards. */
int plait_prim_map_discard(plait_prim_map_t *map, size_t offset, size_t size);

void plait_prim_map_close(plait_prim_map_t *map);

/* ---- sealed maps: written once, then read by several processes ---- */

/* A draft of `size` bytes: a shared map that is written before others may have it. Every page of it
 * is there, so that touching it cannot fail. PLAIT_NOMEM: there is no memory for so much; PLAIT_FULL:
 * no descriptor. Owner: the caller, until it is closed as any map. Its size is exact. */
int plait_prim_draft_create(plait_prim_map_t *map, size_t size);

/* Makes it as long at least; it may move. Where that fails it stays as it is. */
int plait_prim_draft_resize(plait_prim_map_t *map, size_t size);

/* memcpy to a place in it, without a fault for every page of that where it can be helped. */
void plait_prim_draft_write(const plait_prim_map_t *map, void *at, const void *bytes, size_t size);

/* Cuts it to `size` bytes, which nobody can change from now on: the map is a private one instead,
 * elsewhere, and what is written to that is seen by this process alone. Where it fails the draft is
 * gone. */
int plait_prim_draft_seal(plait_prim_map_t *map, size_t size);

/* Maps what another process has sealed, privately. PLAIT_CORRUPT where the descriptor's memory is not
 * sealed or not all there; then, and on other errors, the descriptor stays the caller's. */
int plait_prim_sealed_open(plait_prim_map_t *map, int descriptor);

/* Whether this process has written nothing to these bytes of such a map, as far as the system can
 * tell. Takes time in proportion to their pages. */
bool plait_prim_sealed_is_unchanged(const void *at, size_t size);

/* Closes the descriptor and keeps the map. */
void plait_prim_map_forget_descriptor(plait_prim_map_t *map);

/* ---- descriptors ---- */

/* How many this process may have. */
int plait_prim_descriptor_limit(void);

/* Another for the same file, the caller's, or -1. */
int plait_prim_descriptor_copy(int descriptor);

void plait_prim_descriptor_close(int descriptor);

/* Two numbers that are another file's only when this one is closed everywhere; 0 where the descriptor
 * is closed. */
void plait_prim_descriptor_identity(int descriptor, uint64_t identity[2]);

/* Gives it another number; what had that is closed. */
void plait_prim_descriptor_move(int descriptor, int number);

/* Keeps one that was inherited from what this process runs in its turn. */
void plait_prim_descriptor_keep(int descriptor);

#define PLAIT_PRIM_DESCRIPTORS_MAX 250

/* Two ends, one for a child; both the caller's. PLAIT_OK, PLAIT_NOMEM or PLAIT_SYSTEM. */
int plait_prim_socket_pair(int sockets[2]);

/* Sends copies of descriptors, in one message. Blocks while the other end has many messages to take:
 * PLAIT_OK, PLAIT_CLOSED where it is gone, PLAIT_SYSTEM. */
int plait_prim_socket_send(int socket, const int *descriptors, unsigned count);

/* Takes the next message, which must be there and have so many; the caller's. Never blocks.
 * PLAIT_CORRUPT where it is not so; PLAIT_NOMEM where this process can have no more of them. */
int plait_prim_socket_receive(int socket, int *descriptors, unsigned count);

/* Sends bytes in one message, and a copy of a descriptor with them unless that is -1. Blocks as the
 * other; PLAIT_OK, PLAIT_CLOSED, PLAIT_SYSTEM. */
int plait_prim_socket_tell(int socket, const void *bytes, size_t size, int descriptor);

/* Takes the next such message, which must have just so many bytes. The descriptor is the caller's; -1:
 * none came. Blocks until there is one: PLAIT_OK; PLAIT_CLOSED: none will come; PLAIT_CORRUPT;
 * PLAIT_NOMEM: no room for its descriptor; PLAIT_INTERRUPTED. */
int plait_prim_socket_hear(int socket, void *bytes, size_t size, int *descriptor);

/* ---- filling memory ---- */

/* From this size on, plait_prim_expect_filling is worth its system call. */
#define PLAIT_PRIM_LARGE ((size_t)8 << 20)

/* Tells the system that all of a block from malloc, not touched yet, is about to be written, so that
 * it need not hand it out page by small page. Advice only: the contents stay as they are. Any
 * thread; does not block. */
void plait_prim_expect_filling(void *block, size_t size);

/* ---- processes ---- */

/* Grows by one in the child of every fork since the first call in this process, so that whoever
 * keeps the number can tell that its threads did not come along. Does not block. */
uint32_t plait_prim_fork_count(void);

/* Has `function` called in the child of every fork from now on, in its one thread, before fork
 * returns. At most one function per process; later calls are ignored. */
void plait_prim_after_fork(void (*function)(void));

/* A copy of this process with the calling thread alone: its pid; 0 in the copy; -1: there is no memory
 * for one. */
int plait_prim_fork(void);

/* How many threads this process has. */
unsigned plait_prim_thread_count(void);

/* ---- child processes ---- */

typedef struct plait_prim_child {
    int pid;
    int descriptor; /* becomes readable when the child ends; it, not the pid, names the child */
} plait_prim_child_t;

typedef enum plait_prim_end {
    PLAIT_PRIM_EXITED,   /* the number is its exit status */
    PLAIT_PRIM_SIGNALED, /* the number is the signal's */
    PLAIT_PRIM_UNKNOWN   /* another part of the program has asked for the status */
} plait_prim_end_t;

/* The descriptor that a child finds what it was given at. */
#define PLAIT_PRIM_CHILD_DESCRIPTOR 3

/* Runs `program` (a path) with its arguments, which end with NULL, and an environment likewise;
 * NULL: this process's as it is now.
 * Of the descriptors the child has 0 to 2 and a copy of the one given. It begins with every signal
 * unblocked but SIGINT, which the terminal sends to whole groups: the child unblocks it when it
 * knows what to do with it. Owner: the caller, until plait_prim_child_close. The calling thread must
 * outlive the child, see plait_prim_child_follow. PLAIT_OK, PLAIT_NOMEM or PLAIT_SYSTEM. */
int plait_prim_child_start(plait_prim_child_t *child, const char *program,
                           const char *const *arguments, const char *const *environment,
                           int descriptor);

/* The child of this process with that pid, which may have ended but was not reaped, made by a fork: the
 * caller's, as a started one. PLAIT_OK or PLAIT_SYSTEM. */
int plait_prim_child_find(plait_prim_child_t *child, int pid);

/* Blocks until the child has ended: PLAIT_OK, PLAIT_TIMEOUT or PLAIT_INTERRUPTED. Does not reap. */
int plait_prim_child_wait(const plait_prim_child_t *child, int64_t deadline);

/* The signal by which plait_prim_child_kill ends one. */
#define PLAIT_PRIM_KILLED 9

/* Ends the child at once; nothing where it has ended. Does not block. */
void plait_prim_child_kill(const plait_prim_child_t *child);

/* After plait_prim_child_wait, once: how it ended. Nothing of the process is left then; the child can
 * still be waited for and, to no effect, be killed. */
plait_prim_end_t plait_prim_child_reap(const plait_prim_child_t *child, int *number);

/* After that, once, when nobody uses the child any more. */
void plait_prim_child_close(plait_prim_child_t *child);

/* In the child, early: from now on it is killed when the thread that started it ends, however that
 * happens. False: it has ended already. `parent` is the pid of that thread's process. */
bool plait_prim_child_follow(int parent);

/* In the child: Ctrl-C of the terminal, which all its processes get, is the parent's affair. What
 * the child runs in its turn is not touched by this. */
void plait_prim_child_ignore_interrupts(void);

int plait_prim_process_id(void);

#endif
