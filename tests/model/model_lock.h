/* prim's lock for models: a mutex of Relacy's for each lock in use. Include after model.h, and let the suite own a
 * model_locks and call its begin() in before(). What lies between lock and unlock is then ordered as the lock
 * orders it; that prim's own lock does so is its tests' matter. */
#ifndef PLAIT_TESTS_MODEL_MODEL_LOCK_H
#define PLAIT_TESTS_MODEL_MODEL_LOCK_H

namespace plait_model
{

struct model_locks;
static model_locks *locks_in_use;

struct model_locks {
    enum { MAX = 2 };
    rl::mutex mutexes[MAX];
    const void *owners[MAX];

    void begin()
    {
        for (int i = 0; i < MAX; i++)
            owners[i] = NULL;
        locks_in_use = this;
    }

    rl::mutex &of(const void *owner)
    {
        for (int i = 0; i < MAX; i++) {
            if (!owners[i])
                owners[i] = owner;
            if (owners[i] == owner)
                return mutexes[i];
        }
        too_many("locks");
        return mutexes[0];
    }
};

} /* namespace plait_model */

void plait_prim_lock(plait_prim_lock_t *lock)
{
    plait_model::locks_in_use->of(lock).lock(RL_INFO);
}

void plait_prim_unlock(plait_prim_lock_t *lock)
{
    plait_model::locks_in_use->of(lock).unlock(RL_INFO);
}

#endif
