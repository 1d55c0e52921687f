/* encode_internal: what the files of the encoder share. Included by src/binding/encode*.c alone. */
#ifndef PLAIT_BINDING_ENCODE_INTERNAL_H
#define PLAIT_BINDING_ENCODE_INTERNAL_H

#include "binding/binding.h"

/* Besides 0 and -1 (with an exception): part of the object is not native. No exception is set. */
#define NOT_NATIVE 1

/* For encode_value: an object that may be referred to from where reference counts do not tell, as from
 * a frame that has borrowed it. Immortal objects have 2^32 - 1 references and less; none has 0. */
#define NEVER_ALONE 0

/* An instance of a type outside builtins. 0, -1 or NOT_NATIVE, as the rest. */
int encode_foreign(encoder_t *encoder, PyObject *object, plait_flat_value_t *value);

/* Reserves a container of `words` values and remembers, if need be, that it is the object's. */
int open_container(encoder_t *encoder, PyObject *object, unsigned type, size_t words, size_t length,
                   plait_flat_value_t *value);

/* Encodes one item of a container that is open, to which only that container refers, or others too. */
int encode_item(encoder_t *encoder, PyObject *item, plait_flat_value_t container, size_t index);

/* A body of bytes. */
int encode_bytes(encoder_t *encoder, unsigned type, const void *data, Py_ssize_t size,
                 plait_flat_value_t *value);

/* Keeps the object, and the value that its later references get. */
int remember(encoder_t *encoder, PyObject *object, plait_flat_value_t value);

/* ---- sharing.c; the first three only for encoders that share ---- */

/* As encoder_reset and encoder_fini, before and after that of the writer. */
void sharing_reset(encoder_t *encoder);
void sharing_end(encoder_t *encoder);

/* Adds the blocks to a message that the writer has just finished. 0, or -1 with an exception. */
int sharing_finish(encoder_t *encoder, message_t *message);

/* Where memory was refused: -1 with the exception that says how much. Else 0. */
int sharing_refused(sharing_t *sharing);

/* Puts a reference to a buffer that lies in a block, instead of its bytes. False: it does not. */
bool sharing_refer(encoder_t *encoder, const Py_buffer *view, plait_flat_value_t *value);

/* Copies a large buffer to its place in the message. */
void sharing_copy(encoder_t *encoder, void *data, const void *bytes, size_t size);

#endif
