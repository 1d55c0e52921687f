/* proxy_template: where a pool's children come from: a command, or copies of a template.
 *
 * The proxies of a pool share its template, and so does a later pool that wants one like it, since a
 * list of those that are kept has a reference. Design: docs/design/process.md
 */
#include "binding/proxy.h"

/* How many templates are kept for later pools: each is a process. */
#define KEPT_MOST 2

/* How many templates in a row may be killed before they are ready. */
#define ATTEMPTS 3

/* How long one that does not answer any more may take to end by itself, in ns. */
#define PATIENCE INT64_C(1000000000)

typedef struct kept_template {
    kept_t kept; /* first */
    plait_template_t *template;
} kept_template_t;

static const char *const *strings_of(char **strings)
{
    return (const char *const *)strings;
}

/* ---- what is kept ---- */

static void end(kept_t *kept)
{
    plait_template_release(((kept_template_t *)kept)->template);
    free(kept->key);
    free(kept);
}

/* Keeps a reference for later pools. Without memory, or where none are kept, it does not. */
static void keep(const pool_core_t *core, plait_template_t *template)
{
    kept_template_t *kept = core->keep == 0 ? NULL : malloc(sizeof *kept);
    if (kept == NULL)
        return;
    size_t size;
    void *key = process_key(core, core->template_program, NULL, &size);
    *kept = (kept_template_t){{.key = key, .size = size, .end = end}, template};
    if (key == NULL) {
        free(kept);
        return;
    }
    plait_template_retain(template);
    kept_put(KEPT_TEMPLATE, &kept->kept, KEPT_MOST);
}

/* A reference to one that is kept, and stays so; NULL: none. */
static plait_template_t *find(const pool_core_t *core)
{
    size_t size;
    void *key = core->keep == 0 ? NULL : process_key(core, core->template_program, NULL, &size);
    plait_template_t *found = NULL;
    kept_t *kept;
    while (key != NULL && found == NULL && (kept = kept_take(KEPT_TEMPLATE, key, size)) != NULL) {
        plait_template_t *template = ((kept_template_t *)kept)->template;
        if (plait_template_has_ended(template)) {
            end(kept);
            continue;
        }
        plait_template_retain(template);
        kept_put(KEPT_TEMPLATE, kept, KEPT_MOST);
        found = template;
    }
    free(key);
    return found;
}

/* ---- the pool's ---- */

/* A reference to the pool's template, which is found or started if there is none, or it has ended. */
static int take(pool_core_t *core, plait_template_t **template)
{
    int result = PLAIT_OK;
    plait_prim_lock(&core->template_lock);
    if (core->template != NULL && plait_template_has_ended(core->template)) {
        plait_template_release(core->template);
        core->template = NULL;
    }
    if (core->template == NULL)
        core->template = find(core);
    if (core->template == NULL) {
        result =
            plait_template_start(&core->template, core->template_program[0],
                                 strings_of(core->template_program), strings_of(core->environment));
        if (result == PLAIT_OK)
            keep(core, core->template);
    }
    *template = core->template;
    if (*template != NULL)
        plait_template_retain(*template);
    plait_prim_unlock(&core->template_lock);
    return result;
}

/* One that has not answered. PLAIT_RETRY where it had before, or was killed: another one may do. */
static int lost(pool_core_t *core, plait_template_t *template, unsigned attempt)
{
    char text[160];
    plait_child_death_t death;
    plait_template_end(template, plait_prim_now() + PATIENCE, &death);
    bool killed = death.end == PLAIT_PRIM_SIGNALED && attempt < ATTEMPTS;
    if (killed || plait_template_has_served(template))
        return PLAIT_RETRY;
    snprintf(text, sizeof text,
             "the template process %d %s %d while it imported modules: see preload", death.pid,
             proxy_how(&death), death.number);
    core_failed(core, NULL, text);
    return PLAIT_CLOSED;
}

/* As plait_child_copy; PLAIT_RETRY and PLAIT_CLOSED as lost(). */
static int copy(pool_core_t *core, plait_child_t *child, unsigned attempt)
{
    plait_template_t *template;
    int result = take(core, &template);
    if (result != PLAIT_OK)
        return result;
    result = plait_child_copy(child, template);
    if (result == PLAIT_CLOSED)
        result = lost(core, template, attempt);
    plait_template_release(template);
    return result;
}

int proxy_make_child(pool_core_t *core, plait_child_t *child, unsigned attempt)
{
    int result = PLAIT_UNSUPPORTED;
    if (core->template_program != NULL)
        result = copy(core, child, attempt);
    /* one with threads makes no copies, so its pool's children do themselves what it has done */
    if (result == PLAIT_UNSUPPORTED)
        result = plait_child_start(child, core->program[0], strings_of(core->program),
                                   strings_of(core->environment));
    if (result == PLAIT_NOMEM)
        core_failed(core, NULL, "no memory for a worker process");
    else if (result != PLAIT_OK && result != PLAIT_RETRY && result != PLAIT_CLOSED)
        core_failed(core, NULL, "the system could not start a worker process");
    return result;
}

void proxy_drop_template(pool_core_t *core)
{
    plait_prim_lock(&core->lock);
    bool last = core->members == NULL;
    plait_prim_unlock(&core->lock);
    if (!last)
        return;
    plait_prim_lock(&core->template_lock);
    if (core->template != NULL)
        plait_template_release(core->template);
    core->template = NULL;
    plait_prim_unlock(&core->template_lock);
}
