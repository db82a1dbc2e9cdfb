/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * Asking the agent on behalf of an IKE SA. These functions block until the deadline at most: never call them from a
 * listener.
 */
#ifndef VOICE_DPKI_DECISION_H_
#define VOICE_DPKI_DECISION_H_

#include "notes.h"

/** Find out whether the peer's certificate is trusted, say why in the log, and note it. */
void decide(ike_sa_t *ike_sa, notes_t *notes, certificate_t *certificate);

/** Find out which notifies go with our own certificate, and note them. */
void get_statement(ike_sa_t *ike_sa, notes_t *notes, certificate_t *own);

#endif
