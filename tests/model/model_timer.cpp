/* Models of core/timer_queue.c: a timer that is due is called once, one that was stopped is not, an earlier deadline
 * wakes the server, and whoever has stopped and waited may free. A lost wake-up shows as a deadlock. What they cover:
 * docs/design/timer.md */
#include "model.h"
#include "model_lock.h"

#include "core/timer_queue.c"

using namespace plait_model;

/* Deadlines are 0, which is past, and PLAIT_PRIM_FOREVER. */
int64_t plait_prim_now(void)
{
    return 1;
}

static int calls;
static bool over;  /* the server has nothing more to do */
static bool again; /* the function starts its timer once more, for ever */

static plait_timer_queue_t *queue;
static rl::var<int> *told; /* written by the function, read by who has waited for it */

static void called(plait_timer_t *timer)
{
    calls++;
    (*told)(RL_INFO) = calls;
    if (again && calls == 1)
        RL_ASSERT(plait_timer_queue_start(queue, timer, PLAIT_PRIM_FOREVER) == PLAIT_OK);
    else
        plait_timer_finish(timer);
}

static void called_last(plait_timer_t *timer)
{
    over = true;
    plait_timer_finish(timer);
}

template<typename derived, int threads>
struct timer_suite : rl::test_suite<derived, threads> {
    model_locks locks;
    rl::var<int> told_here;

    void start(unsigned spurious = 0)
    {
        begin(spurious);
        locks.begin();
        calls = 0;
        over = again = false;
        told = &told_here;
        told_here(RL_INFO) = 0;
        queue = make<plait_timer_queue_t>();
        plait_timer_queue_init(queue, &allocator);
    }

    plait_timer_t *make_timer(plait_timer_function_t *function = called)
    {
        plait_timer_t *timer = make<plait_timer_t>();
        plait_timer_init(timer, function);
        return timer;
    }

    void start_at(plait_timer_t *timer, int64_t deadline)
    {
        RL_ASSERT(plait_timer_queue_start(queue, timer, deadline) == PLAIT_OK);
    }

    void stop_and_free(plait_timer_t *timer)
    {
        while (!plait_timer_queue_stop(queue, timer))
            plait_timer_wait(timer);
        unmake(timer);
    }

    void serve_until(int wanted)
    {
        while (calls < wanted && !over)
            plait_timer_queue_serve(queue);
    }

    /* Frees the timer, and then tells the server that all is over. */
    void use_and_end(plait_timer_t *timer)
    {
        stop_and_free(timer);
        if (calls) /* what the function did is visible */
            RL_ASSERT((int)told_here(RL_INFO) == calls);
        timer = make_timer(called_last);
        start_at(timer, 0);
        while (plait_atomic_load_acquire(&timer->state) != IDLE)
            plait_prim_yield();
        unmake(timer);
    }

    void after()
    {
        RL_ASSERT(queue->count == 0);
        plait_timer_queue_fini(queue);
        unmake(queue);
        end();
    }
};

/* The server may sleep already, for ever, or not yet. */
struct due : timer_suite<due, 2> {
    plait_timer_t *timer;

    void before()
    {
        start(1);
        timer = make_timer();
    }

    void thread(unsigned id)
    {
        if (id == 0)
            start_at(timer, 0);
        else
            serve_until(1);
    }

    void after()
    {
        RL_ASSERT(calls == 1);
        stop_and_free(timer);
        timer_suite<due, 2>::after();
    }
};

/* Two that start at once: the server, which sleeps for the later one, must not miss the other. */
struct sooner : timer_suite<sooner, 3> {
    plait_timer_t *first, *second;

    void before()
    {
        start();
        first = make_timer();
        second = make_timer();
    }

    void thread(unsigned id)
    {
        if (id == 0)
            start_at(first, 0);
        else if (id == 1)
            start_at(second, 0);
        else
            serve_until(2);
    }

    void after()
    {
        RL_ASSERT(calls == 2);
        stop_and_free(first);
        stop_and_free(second);
        timer_suite<sooner, 3>::after();
    }
};

/* The owner stops, waits and frees, while the server may be about to call, or is calling. */
struct stopped : timer_suite<stopped, 2> {
    void before()
    {
        start();
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            plait_timer_t *timer = make_timer();
            start_at(timer, 0);
            use_and_end(timer);
        } else {
            serve_until(INT32_MAX);
        }
    }
};

/* A function that starts its timer again instead of finishing: who waits must not sleep on. */
struct restarted : timer_suite<restarted, 2> {
    plait_timer_t *timer;

    void before()
    {
        start();
        again = true;
        timer = make_timer();
        start_at(timer, 0);
    }

    void thread(unsigned id)
    {
        if (id == 0)
            use_and_end(timer);
        else
            serve_until(INT32_MAX);
    }
};

#define SEARCHES(E, S, name)                                                                       \
    E(due, 20, name)                                                                               \
    E(sooner, 3, name)                                                                             \
    E(stopped, 4, name)                                                                            \
    E(restarted, 4, name)                                                                          \
    S(sooner, 20000, name)                                                                         \
    S(stopped, 20000, name)

MODEL_MAIN(timer, SEARCHES)
