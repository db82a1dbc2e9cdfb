/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * What an IKE_AUTH message of the peer carries beside its certificate.
 */
#ifndef VOICE_DPKI_EVIDENCE_H_
#define VOICE_DPKI_EVIDENCE_H_

#include <encoding/message.h>

/** Numbers of the notifies; 0 is none. */
typedef struct {
	uint16_t integrity_info;
	uint16_t ledger_answer;
} notify_numbers_t;

/** Contents of the notifies, owned. An item whose pointer is NULL is absent; one that is present may be empty. */
typedef struct {
	chunk_t integrity_info;
	chunk_t ledger_answer;
	/** TRUE if a notify came twice or is longer than its bound; both items are absent then. */
	bool malformed;
} evidence_t;

/** Take the evidence out of a message that charon has decrypted and parsed. */
evidence_t evidence_read(message_t *message, notify_numbers_t numbers);

/** Free the contents, and leave an evidence without any. */
void evidence_clear(evidence_t *evidence);

/** Clone an item that is present, so that its pointer is not NULL even if it is empty. */
chunk_t clone_item(chunk_t item);

#endif
