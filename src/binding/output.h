/* output: what workers print, and what else they have their maker do. */
#ifndef PLAIT_BINDING_OUTPUT_H
#define PLAIT_BINDING_OUTPUT_H

#include "binding/worker.h" /* first: it includes Python.h */

/* ---- output.c: what workers print, and visits to the maker ---- */

extern PyType_Spec lines_spec;

/* Has sys.stdout and sys.stderr of this interpreter put lines together, if they do not yet; `again`:
 * only streams that are not those of the last time. A stream that does not let its methods be
 * replaced stays as it is. Leaves exceptions alone. */
void output_take_streams(module_state *state, bool again);

/* Likewise in a worker's own interpreter, with all output carried to the maker; eager: (bool, bool),
 * whether each line is to be seen at once. 0, or -1 with an exception. */
int output_take_own_streams(worker_data_t *data, PyObject *eager);

/* The worker, before the outcome of a call can be seen: what it has printed comes out. */
void output_end(worker_data_t *data);

/* At its end. */
void output_leave(worker_data_t *data);

/* At the end of its pool, if its interpreter does not end; and before the next one, when what was
 * printed in between has nowhere to go. */
void output_end_all(worker_data_t *data);
void output_forget(worker_data_t *data);

void output_end_line(open_line_t *line);

static inline void output_settle(worker_data_t *data)
{
    /* relaxed: what other threads print may as well wait for the end of the next task */
    if (plait_atomic_load_relaxed(&data->printed))
        output_end(data);
}

/* ---- visit.c: what a worker of another interpreter has its maker do ---- */

/* plait._maker.write(index, text, flush) and .handle(attributes, pickled). */
typedef enum { VISIT_WRITE, VISIT_HANDLE, VISIT_COUNT } visit_t;

/* Whether this thread is that worker's, in its own interpreter. `data` may be NULL. */
bool visit_can_be_made(const worker_data_t *data);

/* Such a thread: has it done, with a tuple of arguments that encode_message takes. What is raised
 * comes back from an interpreter worker's visit, and is reported in the maker's process where the
 * worker is a child. 0, or -1 with an exception. Blocks while others have the maker's GIL. */
int visit_maker(worker_data_t *data, visit_t visit, PyObject *arguments);

/* A proxy, in no interpreter: has it done for its child. */
void visit_for_child(worker_data_t *data, visit_t visit, const message_t *arguments);

/* The worker's or proxy's thread, in no interpreter, at its end. */
void visit_end(worker_data_t *data);

#endif
