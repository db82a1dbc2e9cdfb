/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * What the plugin and the agent say to one another on the unix socket; segw_agent/protocol.py is the agent's half.
 *
 *   frame   = length(2) of what follows, body
 *   request = version(1) = 1, operation(1), side(1), policy(1), unique id(4), SPIi(8), SPIr(8), item*
 *   answer  = version(1) = 1, verdict(1), item*
 *   item    = tag(1), length(2), value: tags rise, each at most once, and unknown ones are malformed
 */
#ifndef VOICE_DPKI_INQUIRY_H_
#define VOICE_DPKI_INQUIRY_H_

#include <stdbool.h>
#include <stdint.h>

#include <utils/chunk.h>

#define INQUIRY_VERSION 1
#define MAX_IDENTITY 1025
#define MAX_CERTIFICATE 8192
#define MAX_INTEGRITY_INFO 4096
#define MAX_LEDGER_ANSWER 32768
#define MAX_CONNECTION 64
#define MAX_CODE 64
#define MAX_SENTENCE 512

typedef enum {
	/** Is the peer's certificate trusted? */
	OPERATION_JUDGE = 1,
	/** Which notifies go with our own certificate? */
	OPERATION_STATE = 2,
} operation_t;

/** Who we are: a device that judges a gateway, or a gateway that judges a device. */
typedef enum {
	SIDE_INITIATOR = 1,
	SIDE_RESPONDER = 2,
} side_t;

/** What is done with N(INTEGRITY_INFO). */
typedef enum {
	POLICY_IGNORE = 0,
	POLICY_CHECK = 1,
	POLICY_REQUIRE = 2,
} policy_t;

/** A request. An item whose pointer is NULL is absent; one that is present may be empty. Nothing is owned. */
typedef struct {
	operation_t operation;
	side_t side;
	policy_t policy;
	/** charon's number of the IKE SA. */
	uint32_t unique_id;
	/** As on the wire, in network order. */
	uint64_t spi_i;
	uint64_t spi_r;
	/** ID type(1), then the identity's octets. */
	chunk_t identity;
	chunk_t certificate;
	chunk_t integrity_info;
	chunk_t ledger_answer;
	chunk_t connection;
} inquiry_t;

/** An answer. The chunks point into the octets that were parsed; those whose pointer is NULL are absent. */
typedef struct {
	bool positive;
	char code[MAX_CODE + 1];
	char sentence[MAX_SENTENCE + 1];
	chunk_t integrity_info;
	chunk_t ledger_answer;
} answer_t;

/**
 * Write a request, frame and all.
 *
 * @return		allocated octets, or chunk_empty if an item exceeds its bound
 */
chunk_t inquiry_encode(const inquiry_t *inquiry);

/**
 * Parse the body of an answer.
 *
 * @return		FALSE unless it is well formed to the last octet; the answer is negative then
 */
bool answer_parse(chunk_t body, answer_t *answer);

#endif
