/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * What is known about each IKE SA while it is being authenticated.
 *
 * charon calls listeners with its bus locked, so they only take notes; the agent is asked later, from within the
 * lookup of credentials. charon lets one thread at a time work on an IKE SA: only the table of the notes needs a
 * lock, and no thread waits for another's inquiry.
 */
#ifndef VOICE_DPKI_NOTES_H_
#define VOICE_DPKI_NOTES_H_

#include <credentials/certificates/certificate.h>
#include <sa/ike_sa.h>

#include "evidence.h"

typedef struct {
	/** From the latest IKE_AUTH of the peer. */
	evidence_t evidence;
	/** The peer's certificate that the verdict is about, NULL before there is one. */
	certificate_t *judged;
	bool trusted;
	/** TRUE once the peer authenticated itself by the key of the trusted certificate. */
	bool authorised;
	/** Our certificate that the agent was asked to state something for, NULL before. */
	certificate_t *own;
	/** What goes out with it. */
	evidence_t statement;
} notes_t;

typedef struct notes_table_t notes_table_t;

notes_table_t *notes_table_create();

void notes_table_destroy(notes_table_t *table);

/** The notes of an IKE SA, made if there are none. */
notes_t *notes_make(notes_table_t *table, ike_sa_t *ike_sa);

/** The notes of an IKE SA, or NULL. */
notes_t *notes_get(notes_table_t *table, ike_sa_t *ike_sa);

/** Drop the notes of an IKE SA, if there are any. */
void notes_forget(notes_table_t *table, ike_sa_t *ike_sa);

#endif
