/* prim/linux/socket: how descriptors get from one process to another.
 *
 * A pair of sockets that keep messages apart; each message carries descriptors, bytes or both.
 * What is on its way belongs to the socket and goes with it, so a process that dies leaves none. One
 * thread at a time for each end and direction. Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/prim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* How long a full system is left alone, in ms. */
#define NAP 1

/* Room for the most descriptors that a message can have. */
typedef union control {
    struct cmsghdr head; /* aligns it */
    char bytes[CMSG_SPACE(sizeof(int) * PLAIT_PRIM_DESCRIPTORS_MAX)];
} control_t;

int plait_prim_socket_pair(int sockets[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0)
        return PLAIT_OK;
    return errno == ENOMEM || errno == ENOBUFS ? PLAIT_NOMEM : PLAIT_SYSTEM;
}

int plait_prim_descriptor_copy(int descriptor)
{
    return fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
}

void plait_prim_descriptor_close(int descriptor)
{
    close(descriptor);
}

void plait_prim_descriptor_identity(int descriptor, uint64_t identity[2])
{
    struct stat found;
    bool open = fstat(descriptor, &found) == 0;
    identity[0] = open ? (uint64_t)found.st_dev : 0;
    identity[1] = open ? (uint64_t)found.st_ino : 0;
}

void plait_prim_descriptor_move(int descriptor, int number)
{
    if (descriptor == number)
        return;
    dup3(descriptor, number, O_CLOEXEC);
    close(descriptor);
}

void plait_prim_descriptor_keep(int descriptor)
{
    fcntl(descriptor, F_SETFD, FD_CLOEXEC);
}

/* Blocks while the other end has many messages to take. */
static int send_message(int socket, struct msghdr *message)
{
    for (;;) {
        if (sendmsg(socket, message, MSG_NOSIGNAL) >= 0)
            return PLAIT_OK;
        if (errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM) {
            /* until some have arrived, or nobody is there who could take them */
            struct pollfd end = {.fd = socket};
            if (poll(&end, 1, NAP) > 0)
                return PLAIT_CLOSED;
        } else if (errno != EINTR) {
            return errno == EPIPE || errno == ECONNRESET ? PLAIT_CLOSED : PLAIT_SYSTEM;
        }
    }
}

/* Has the message carry descriptors. */
static void put_descriptors(struct msghdr *message, control_t *control, const int *descriptors,
                            unsigned count)
{
    memset(control, 0, sizeof *control);
    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int) * count),
                             .cmsg_level = SOL_SOCKET,
                             .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(head), descriptors, sizeof(int) * count);
}

int plait_prim_socket_send(int socket, const int *descriptors, unsigned count)
{
    control_t control;
    char byte = 0;
    struct iovec text = {&byte, 1};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    if (count == 0 || count > PLAIT_PRIM_DESCRIPTORS_MAX)
        return PLAIT_INVALID;
    put_descriptors(&message, &control, descriptors, count);
    return send_message(socket, &message);
}

int plait_prim_socket_tell(int socket, const void *bytes, size_t size, int descriptor)
{
    control_t control;
    struct iovec text = {.iov_len = size};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    memcpy(&text.iov_base, &bytes, sizeof bytes); /* sendmsg changes none of them */
    if (descriptor >= 0)
        put_descriptors(&message, &control, &descriptor, 1);
    return send_message(socket, &message);
}

/* Those that came in a message, and how many: closed again if that is not what was expected. */
static int take_descriptors(struct msghdr *message, int *descriptors, unsigned count)
{
    int code = message->msg_flags & MSG_CTRUNC ? PLAIT_NOMEM : PLAIT_CORRUPT;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head != NULL;
         head = CMSG_NXTHDR(message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
            continue;
        size_t came = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        const unsigned char *data = CMSG_DATA(head);
        if (code == PLAIT_CORRUPT && came == count) { /* a message has one such part at most */
            memcpy(descriptors, data, sizeof(int) * count);
            return PLAIT_OK;
        }
        for (size_t index = 0; index < came; index++) {
            int descriptor;
            memcpy(&descriptor, data + index * sizeof descriptor, sizeof descriptor);
            close(descriptor);
        }
    }
    return code;
}

int plait_prim_socket_receive(int socket, int *descriptors, unsigned count)
{
    control_t control;
    char byte;
    struct iovec text = {&byte, 1};
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t got;
    if (count == 0 || count > PLAIT_PRIM_DESCRIPTORS_MAX)
        return PLAIT_CORRUPT;
    do
        got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    return got == 1 ? take_descriptors(&message, descriptors, count) : PLAIT_CORRUPT;
}

int plait_prim_socket_hear(int socket, void *bytes, size_t size, int *descriptor)
{
    control_t control;
    struct iovec text = {bytes, size};
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    *descriptor = -1;
    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (got < 0)
        return errno == EINTR        ? PLAIT_INTERRUPTED
               : errno == ECONNRESET ? PLAIT_CLOSED
                                     : PLAIT_SYSTEM;
    if (got == 0 && size > 0)
        return PLAIT_CLOSED;
    int result = PLAIT_OK;
    if (message.msg_controllen > 0 || message.msg_flags & MSG_CTRUNC)
        result = take_descriptors(&message, descriptor, 1);
    if (result == PLAIT_OK && ((size_t)got != size || message.msg_flags & MSG_TRUNC))
        result = PLAIT_CORRUPT;
    if (result != PLAIT_OK && *descriptor >= 0) {
        close(*descriptor);
        *descriptor = -1;
    }
    return result;
}
