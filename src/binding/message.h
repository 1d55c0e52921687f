/* message: Python objects as flat messages, and functions on their way to other interpreters. */
#ifndef PLAIT_BINDING_MESSAGE_H
#define PLAIT_BINDING_MESSAGE_H

#include "binding/state.h" /* first: it includes Python.h */
#include "binding/table.h"
#include "core/block.h"
#include "plait/flat.h"

/* ---- messages ---- */

/* One flat value that owns its message, if it needs one at all: an int or None is the root word
 * alone. */
typedef struct message {
    plait_flat_value_t root;
    void *bytes; /* NULL where root is not a REF; else from plait_alloc_system, unless borrowed */
    size_t size;
    bool borrowed;          /* the bytes belong to whatever holds this message */
    plait_bundle_t *bundle; /* the blocks that it lies in or refers to; NULL: none */
    bool bundle_borrowed;   /* likewise */
} message_t;

void message_clear(message_t *message);

/* ---- encode.c ---- */

typedef struct sharing sharing_t;

typedef struct encoder {
    module_state *state;
    plait_flat_writer_t writer;
    table_t memo;       /* object address -> value of its body; holds a reference to each */
    bool alone;         /* the object whose container is opened next cannot be met again */
    sharing_t *sharing; /* NULL: it does not share, see sharing.c */
} encoder_t;

void encoder_init(encoder_t *encoder, module_state *state);
void encoder_fini(encoder_t *encoder);
void encoder_reset(encoder_t *encoder);

/* One object: natively if all of it can be, else the whole of it as one pickle. 0, or -1 with an
 * exception that names the object. */
int encode_object(encoder_t *encoder, PyObject *object, plait_flat_value_t *value);

/* A call's arguments: a TUPLE of the keyword names' tuple (or None) and then all values. */
int encode_call(encoder_t *encoder, PyObject *const *args, Py_ssize_t positional,
                PyObject *keyword_names, plait_flat_value_t *value);

/* Ends the message; the encoder can be used again. 0, or -1 with an exception. */
int encoder_finish(encoder_t *encoder, plait_flat_value_t root, message_t *message);

/* Likewise; a small message is copied to `room`, and the encoder keeps its block. */
int encoder_finish_into(encoder_t *encoder, plait_flat_value_t root, message_t *message, void *room,
                        size_t capacity);

/* An encoder that is kept from one use to the next. Encoding can run code that encodes: who finds
 * it taken gets the spare one instead, which lives for this use only. */
typedef struct kept_encoder {
    encoder_t encoder;
    bool taken;
} kept_encoder_t;

encoder_t *encoder_take(kept_encoder_t *kept, encoder_t *spare);
void encoder_give(kept_encoder_t *kept, encoder_t *encoder);

/* All of it in one: a message of its own for one object. */
int encode_message(module_state *state, PyObject *object, message_t *message);

/* ---- sharing.c ---- */

extern PyType_Spec view_spec;

/* After encoder_init: its messages go to another process and may lie in blocks. */
void encoder_share(encoder_t *encoder);

/* ---- decode.c ---- */

typedef struct decoder {
    module_state *state;
    plait_flat_reader_t reader;
    size_t budget;                /* see plait_flat_charge */
    const plait_bundle_t *bundle; /* the message's */
    table_t memo;                 /* offset of a shared body -> object; holds a reference to each */
    struct open_tuple *open;      /* shared tuples that are being filled, see decode.c */
    bool foreign;                 /* something in it was of no builtin type */
} decoder_t;

int decoder_open(decoder_t *decoder, module_state *state, const message_t *message);
void decoder_close(decoder_t *decoder);
PyObject *decode_value(decoder_t *decoder, plait_flat_value_t value);
PyObject *decode_message(module_state *state, const message_t *message);

/* The words of the message's root container, to be decoded one by one. 0, or -1 with an exception.
 */
int decode_root(decoder_t *decoder, unsigned type, plait_flat_body_t *body);

/* sharing.c. Whether a BUFFER is to be a view of its message's block, and that; a new reference, or
 * NULL with an exception. */
bool sharing_views(const decoder_t *decoder, const plait_flat_body_t *body);
PyObject *sharing_view(decoder_t *decoder, const plait_flat_body_t *body);

/* Likewise, the view that stands for a reference that the encoder has put instead of a BUFFER. */
PyObject *sharing_resolve(decoder_t *decoder, PyObject *reference);

/* ---- names.c: functions and classes by name ---- */

/* Whether a function or class can be found again by its module's and its own name. Leaves no
 * exception. */
bool is_importable(module_state *state, PyObject *object);

/* Imports the module and finds the qualified name in it. A new reference, or NULL with an
 * exception. */
PyObject *import_by_name(PyObject *module_name, PyObject *path);

/* ---- ship.c: functions on their way to workers of other interpreters ---- */

/* A callable as a message: made once, read by every worker, which keeps the callable it makes of
 * it. */
#define SHIPMENT_NAME 80

typedef struct shipment {
    PLAIT_ATOMIC(uint32_t) references;
    uint64_t id; /* unique in the process */
    message_t message;
    char name[SHIPMENT_NAME]; /* what to call it in messages, UTF-8 */
    bool elsewhere;           /* not for this pool's workers, see shipper_place_with */
} shipment_t;

void shipment_retain(shipment_t *shipment);
void shipment_release(shipment_t *shipment);

/* A pool's memory of what it has shipped, in one interpreter. */
typedef struct shipper shipper_t;
shipper_t *shipper_new(module_state *state,
                       bool share); /* to other processes; NULL with an exception */
void shipper_free(shipper_t *shipper);

/* For the arguments that travel with what it ships. */
kept_encoder_t *shipper_encoder(shipper_t *shipper);

/* `decide` is asked about each callable that is sent for the first time; where it says True, the
 * shipment is marked: its calls are not for this pool's workers. See plait._placement. */
void shipper_place_with(shipper_t *shipper, PyObject *decide);

/* Lets go of every callable and shipment. */
void shipper_forget(shipper_t *shipper);

/* The shipment of a callable: the one made earlier if nothing that it carries has changed. A new
 * reference, or NULL with an exception that names the callable. */
shipment_t *ship(module_state *state, shipper_t *shipper, PyObject *callable);

/* The shipment of what travels of a context, which takes the message over: the one made last if the
 * bytes are the same. A new reference, or NULL with an exception. */
shipment_t *ship_context(shipper_t *shipper, message_t *message);

#endif
