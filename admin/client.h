/* The way to a running gatewayd: one request, one reply, both a JSON object in a datagram of at most CLIENT_MESSAGE_MAX
 * bytes on its control socket.  A reply may carry the read end of a pipe. */
#pragma once

#include <jansson.h>

#define CLIENT_MESSAGE_MAX 65536
#define CLIENT_SOCKET_DEFAULT "/run/gatewayd/control.sock"

/* Where the socket is: what --socket said (kept, not copied), else $GATEWAYD_SOCKET, else the default. */
void client_set_socket(const char *path);
const char *client_socket(void);

/* Takes over the request (NULL: memory is short).  Returns the reply (the caller's) if it says {"ok":true}; *fd is then
 * its descriptor, or -1; fd may be NULL where none is expected.  Otherwise says why on standard error, sets *code to
 * the exit code, and returns NULL. */
json_t *client_ask(json_t *request, int *fd, int *code);
/* The same for an order that may take as long as compiling a policy does; given (-1: none) goes along and stays the caller's.  said (NULL:
 * interrupts do what they did) is what an interrupt says, and ends the program, from the moment on at which the order has left; until then
 * it says that nothing was ordered.  Returns the reply whatever it says; NULL, with *code, only if there is none. */
json_t *client_order(json_t *request, int given, const char *said, int *code);
/* On standard error: why it was refused; its diagnostics. */
void client_show_refusal(const json_t *reply);
void client_show_notes(const json_t *reply);
