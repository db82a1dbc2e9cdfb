/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * Asking the agent, with a deadline.
 */
#ifndef VOICE_DPKI_AGENT_H_
#define VOICE_DPKI_AGENT_H_

#include <sys/types.h>

#include <utils/chunk.h>

typedef enum {
	AGENT_ANSWERED,
	/** Nobody listens, or the connection ended before the answer did. */
	AGENT_AWAY,
	/** The deadline passed. */
	AGENT_LATE,
} agent_outcome_t;

/**
 * Send a request to the agent and wait for the answer. Blocks the thread until the deadline at most. Asks once more
 * if the connection ends before the answer does: another agent may have taken over.
 *
 * @param path			path of the agent's unix socket
 * @param deadline_ms	for everything together
 * @param request		frame of the request
 * @param body			body of the answer, allocated, if AGENT_ANSWERED
 */
agent_outcome_t agent_ask(const char *path, u_int deadline_ms, chunk_t request,
						  chunk_t *body);

#endif
