/* sharing: how large messages to and from other processes get by without copies.
 *
 * An encoder that shares has its large messages written straight into a block (core/block.h), and
 * leaves buffers where they are that lie in a block already. Whoever decodes such a message gets its
 * large buffers as views of the block. Invariant: an encoder's draft is its writer's memory, or there
 * is none. Design: docs/design/process.md
 */
#include "binding/encode_internal.h"
#include "core/block.h"

/* From this size on, a buffer of a message is a view of the block, not a copy; and only if it is no
 * small part of the message, all of which it keeps. */
#define VIEW_LEAST ((size_t)64 << 10)
#define VIEW_PART 8

#define ATTACHED_MAX (PLAIT_BUNDLE_MAX - 1)

struct sharing {
    plait_alloc_t alloc;  /* the writer's */
    plait_block_t *draft; /* the writer's memory; NULL: that is ordinary, of `plain` bytes */
    size_t plain;
    size_t refused; /* what there was no memory for */
    unsigned count;
    plait_block_t *attached[ATTACHED_MAX]; /* references: blocks that the message refers to */
};

/* ---- the writer's memory ---- */

static void *to_plain(sharing_t *sharing, void *block, size_t size)
{
    void *made = plait_alloc_system.resize(plait_alloc_system.context, block, size);
    if (made != NULL)
        sharing->plain = size;
    else
        sharing->refused = size;
    return made;
}

/* From ordinary memory to a draft. */
static void *to_draft(sharing_t *sharing, void *block, size_t size)
{
    int result = plait_block_draft(&sharing->draft, size);
    if (result == PLAIT_OK) {
        if (block != NULL)
            memcpy(sharing->draft->map.base, block, sharing->plain);
        plait_alloc_system.release(plait_alloc_system.context, block);
        return sharing->draft->map.base;
    }
    sharing->draft = NULL;
    if (result !=
        PLAIT_NOMEM) /* no descriptor to spare, say: then it is sent as smaller ones are */
        return to_plain(sharing, block, size);
    sharing->refused = size;
    return NULL;
}

static void *resize(void *context, void *block, size_t size)
{
    sharing_t *sharing = context;
    if (sharing->draft == NULL)
        return size < PLAIT_BLOCK_LEAST ? to_plain(sharing, block, size)
                                        : to_draft(sharing, block, size);
    if (plait_block_resize(sharing->draft, size) == PLAIT_OK)
        return sharing->draft->map.base;
    sharing->refused = size;
    return NULL;
}

static void *allocate(void *context, size_t size)
{
    return resize(context, NULL, size);
}

static void release(void *context, void *block)
{
    sharing_t *sharing = context;
    if (sharing->draft == NULL) {
        plait_alloc_system.release(plait_alloc_system.context, block);
        return;
    }
    plait_block_release(sharing->draft);
    sharing->draft = NULL;
}

void encoder_share(encoder_t *encoder)
{
    sharing_t *sharing = calloc(1, sizeof *sharing);
    if (sharing == NULL)
        return; /* then everything is copied */
    sharing->alloc = (plait_alloc_t){sharing, allocate, resize, release};
    encoder->sharing = sharing;
    encoder->writer.alloc = &sharing->alloc;
}

static void detach(sharing_t *sharing)
{
    while (sharing->count > 0)
        plait_block_release(sharing->attached[--sharing->count]);
}

void sharing_reset(encoder_t *encoder)
{
    detach(encoder->sharing);
    encoder->sharing->refused = 0;
    if (encoder->sharing->draft != NULL)
        plait_flat_writer_fini(&encoder->writer); /* too much to keep */
}

void sharing_end(encoder_t *encoder)
{
    detach(encoder->sharing);
    free(encoder->sharing);
    encoder->sharing = NULL;
}

int sharing_refused(sharing_t *sharing)
{
    if (sharing->refused == 0)
        return 0;
    PyErr_Format(PyExc_MemoryError,
                 "no room in shared memory for a message of %zu bytes between processes",
                 sharing->refused);
    sharing->refused = 0;
    return -1;
}

/* ---- what is encoded ---- */

void sharing_copy(encoder_t *encoder, void *data, const void *bytes, size_t size)
{
    if (encoder->sharing != NULL && encoder->sharing->draft != NULL)
        plait_prim_draft_write(&encoder->sharing->draft->map, data, bytes, size);
    else
        memcpy(data, bytes, size);
}

/* The number of a block among those attached; it takes the reference over. -1: there are too many. */
static int attach(sharing_t *sharing, plait_block_t *block)
{
    for (unsigned index = 0; index < sharing->count; index++)
        if (sharing->attached[index] == block) {
            plait_block_release(block);
            return (int)index;
        }
    if (sharing->count == ATTACHED_MAX) {
        plait_block_release(block);
        return -1;
    }
    sharing->attached[sharing->count] = block;
    return (int)sharing->count++;
}

bool sharing_refer(encoder_t *encoder, const Py_buffer *view, plait_flat_value_t *value)
{
    if (encoder->sharing == NULL || view->len < (Py_ssize_t)PLAIT_BLOCK_LEAST)
        return false;
    plait_block_t *block = plait_block_find(view->buf, (size_t)view->len);
    if (block == NULL)
        return false;
    size_t offset = (size_t)((char *)view->buf - (char *)block->map.base);
    int index = attach(encoder->sharing, block);
    plait_flat_value_t reference;
    if (index < 0 ||
        plait_flat_put_words(&encoder->writer, PLAIT_FLAT_TUPLE, 4, 4, &reference) != PLAIT_OK)
        return false;
    plait_flat_set(&encoder->writer, reference, 0, plait_flat_int(index));
    plait_flat_set(&encoder->writer, reference, 1, plait_flat_int((int64_t)offset));
    plait_flat_set(&encoder->writer, reference, 2, plait_flat_int(view->len));
    plait_flat_set(&encoder->writer, reference, 3, plait_flat_int(view->readonly ? 1 : 0));
    *value = reference;
    return true;
}

int sharing_finish(encoder_t *encoder, message_t *message)
{
    sharing_t *sharing = encoder->sharing;
    plait_block_t *draft = sharing->draft;
    bool has_message = draft != NULL && message->bytes == draft->map.base;
    unsigned count = sharing->count + (has_message ? 1 : 0);
    if (count == 0)
        return 0;
    plait_bundle_t *bundle = plait_bundle_new(count);
    int result = bundle == NULL ? PLAIT_NOMEM : PLAIT_OK;
    if (has_message) {
        sharing->draft = NULL; /* the writer has given it up */
        if (bundle == NULL)
            plait_block_release(draft);
        else
            result = plait_block_seal(draft, message->size);
        if (result == PLAIT_OK) {
            bundle->has_message = true;
            bundle->blocks[0] = draft;
            message->bytes = draft->map.base;
        } else {
            message->bytes = NULL;
        }
    }
    if (result != PLAIT_OK) {
        plait_bundle_free(bundle);
        message_clear(message);
        raise_core_error(result, "sharing a message with another process");
        return -1;
    }
    memcpy(bundle->blocks + (has_message ? 1 : 0), sharing->attached,
           sharing->count * sizeof *sharing->attached);
    sharing->count = 0;
    message->bundle = bundle;
    return 0;
}

/* ---- what is decoded ---- */

/* Some bytes of a block, which it keeps. */
typedef struct view_object {
    PyObject_HEAD
    plait_block_t *block;
    void *bytes;
    Py_ssize_t size;
    bool readonly;
} view_object;

static int view_get_buffer(PyObject *object, Py_buffer *buffer, int flags)
{
    view_object *self = (view_object *)object;
    return PyBuffer_FillInfo(buffer, object, self->bytes, self->size, self->readonly, flags);
}

static void view_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    plait_block_release(((view_object *)object)->block);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyType_Slot view_slots[] = {
    {Py_tp_doc, "Bytes that lie in memory shared with other processes."},
    {Py_tp_dealloc, view_dealloc},
    {Py_bf_getbuffer, view_get_buffer},
    {0, NULL},
};

PyType_Spec view_spec = {
    .name = "plait._plait.SharedBytes",
    .basicsize = sizeof(view_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = view_slots,
};

static PyObject *view_new(module_state *state, plait_block_t *owner, size_t offset, size_t size,
                          bool readonly)
{
    plait_block_t *block = plait_block_lend(owner, offset, size);
    if (block == NULL)
        return PyErr_Format(PyExc_MemoryError,
                            "no memory or no file descriptor to map %zu shared bytes once more",
                            size);
    view_object *self = PyObject_New(view_object, state->view_type);
    if (self == NULL) {
        plait_block_release(block);
        return NULL;
    }
    self->block = block;
    self->bytes = (char *)block->map.base + offset;
    self->size = (Py_ssize_t)size;
    self->readonly = readonly;
    PyObject *view = PyMemoryView_FromObject((PyObject *)self);
    Py_DECREF(self);
    return view;
}

bool sharing_views(const decoder_t *decoder, const plait_flat_body_t *body)
{
    return decoder->bundle != NULL && decoder->bundle->has_message &&
           decoder->state->view_type != NULL && body->byte_count >= VIEW_LEAST &&
           body->byte_count >= decoder->reader.size / VIEW_PART;
}

PyObject *sharing_view(decoder_t *decoder, const plait_flat_body_t *body)
{
    return view_new(decoder->state, decoder->bundle->blocks[0],
                    (size_t)(body->bytes - decoder->reader.base), body->byte_count,
                    (body->flags & PLAIT_FLAT_FLAG_READONLY) != 0);
}

PyObject *sharing_resolve(decoder_t *decoder, PyObject *reference)
{
    long long index, offset, size;
    int readonly;
    if (!PyArg_ParseTuple(reference, "LLLp;malformed plait message: a block", &index, &offset,
                          &size, &readonly))
        return NULL;
    const plait_bundle_t *bundle = decoder->bundle;
    unsigned first = bundle != NULL && bundle->has_message ? 1 : 0;
    if (bundle != NULL && decoder->state->view_type != NULL && index >= 0 &&
        index < (long long)(bundle->count - first)) {
        plait_block_t *block = bundle->blocks[first + (unsigned)index];
        if (offset >= 0 && size >= 0 && (uint64_t)offset <= block->map.size &&
            (uint64_t)size <= block->map.size - (uint64_t)offset)
            return view_new(decoder->state, block, (size_t)offset, (size_t)size, readonly != 0);
    }
    PyErr_SetString(PyExc_ValueError, "malformed plait message: a block that did not come with it");
    return NULL;
}
