/* Models of core/mailbox.c: nothing lost, the receiver never left asleep, close noticed. A lost wake-up shows as a
 * deadlock. What they cover: docs/design/mailbox.md */
#include "model.h"
#include "model_lock.h"

#include "core/mailbox.c"

using namespace plait_model;

/* Senders 0 .. senders-1 push their letters, the last one closes where asked; thread `senders` receives. */
template<typename derived, int senders, int letters>
struct mailbox_suite : rl::test_suite<derived, senders + 1> {
    plait_mailbox_t *mailbox;
    model_locks locks;
    plait_link_t links[senders][letters];
    rl::var<int> payload[senders][letters];

    void start(unsigned spurious = 0)
    {
        begin(spurious);
        locks.begin();
        mailbox = make<plait_mailbox_t>();
        plait_mailbox_init(mailbox);
    }

    void send(unsigned sender)
    {
        for (int i = 0; i < letters; i++) {
            payload[sender][i](RL_INFO) = 1;
            plait_mailbox_push(mailbox, &links[sender][i]);
        }
    }

    /* How many letters a list has; each sender's in its order. */
    int open(plait_link_t *list, int (&next)[senders])
    {
        int count = 0;
        for (; list; list = list->next, count++) {
            int place = (int)(list - &links[0][0]);
            int sender = place / letters, number = place % letters;
            RL_ASSERT(number == next[sender]);
            next[sender]++;
            RL_ASSERT((int)payload[sender][number](RL_INFO) == 1);
        }
        return count;
    }

    /* Takes all letters; with `closed`, until it is told that no more will come. */
    void receive(int64_t deadline, bool closed)
    {
        int next[senders] = {}, count = 0;
        plait_link_t *list;
        while (closed || count < senders * letters) {
            int result = plait_mailbox_take(mailbox, deadline, &list);
            if (result == PLAIT_CLOSED) {
                RL_ASSERT(closed && count == senders * letters);
                return;
            }
            if (result == PLAIT_TIMEOUT)
                deadline = PLAIT_PRIM_FOREVER;
            if (result == PLAIT_OK)
                count += open(list, next);
        }
    }

    void after()
    {
        unmake(mailbox);
        end();
    }
};

struct one_sender : mailbox_suite<one_sender, 1, 2> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id == 0)
            send(0);
        else
            receive(PLAIT_PRIM_FOREVER, false);
    }
};

struct two_senders : mailbox_suite<two_senders, 2, 1> {
    void before()
    {
        start();
    }

    void thread(unsigned id)
    {
        if (id < 2)
            send(id);
        else
            receive(PLAIT_PRIM_FOREVER, false);
    }
};

/* The bit of a sleep that timed out is still set when the next one begins. */
struct late : mailbox_suite<late, 1, 2> {
    void before()
    {
        start();
    }

    void thread(unsigned id)
    {
        if (id == 0)
            send(0);
        else
            receive(1, false);
    }
};

struct closing : mailbox_suite<closing, 1, 1> {
    void before()
    {
        start();
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            send(0);
            plait_mailbox_close(mailbox);
        } else {
            receive(PLAIT_PRIM_FOREVER, true);
        }
    }
};

#define SEARCHES(E, S, name)                                                                       \
    E(one_sender, 5, name)                                                                         \
    E(two_senders, 3, name)                                                                        \
    E(late, 4, name)                                                                               \
    E(closing, 5, name)                                                                            \
    S(two_senders, 20000, name)

MODEL_MAIN(mailbox, SEARCHES)
