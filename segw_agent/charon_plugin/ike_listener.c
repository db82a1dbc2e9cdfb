/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 */
#include "ike_listener.h"

#include <daemon.h>

#include "settings.h"

typedef struct {
	listener_t public;
	notes_table_t *notes;
} private_listener_t;

/** Take note of what the peer sent; a verdict on an earlier message is void. */
static void received(notes_t *notes, message_t *message)
{
	evidence_clear(&notes->evidence);
	notes->evidence = evidence_read(message, settings_numbers());
	DESTROY_IF(notes->judged);
	notes->judged = NULL;
	notes->trusted = FALSE;
}

/** Put what the agent stated into the message that carries our certificate. */
static void sending(notes_t *notes, message_t *message)
{
	notify_numbers_t numbers = settings_numbers();

	if (!message->get_payload(message, PLV2_CERTIFICATE))
	{
		return;
	}
	if (!notes || !notes->own)
	{
		DBG1(DBG_CFG, "voice-dpki: nothing is stated with our certificate: it must "
			 "be the connection's (certs), and this plugin loaded before vici");
		return;
	}
	if (notes->statement.integrity_info.ptr && numbers.integrity_info)
	{
		message->add_notify(message, FALSE, numbers.integrity_info,
							notes->statement.integrity_info);
	}
	if (notes->statement.ledger_answer.ptr && numbers.ledger_answer)
	{
		message->add_notify(message, FALSE, numbers.ledger_answer,
							notes->statement.ledger_answer);
	}
	evidence_clear(&notes->statement);
}

METHOD(listener_t, message, bool,
	private_listener_t *this, ike_sa_t *ike_sa, message_t *message,
	bool incoming, bool plain)
{
	if (!plain || !ike_sa || message->get_exchange_type(message) != IKE_AUTH)
	{
		return TRUE;
	}
	if (incoming)
	{
		if (ike_sa->get_state(ike_sa) == IKE_CONNECTING)
		{
			received(notes_make(this->notes, ike_sa), message);
		}
		return TRUE;
	}
	sending(notes_get(this->notes, ike_sa), message);
	if (ike_sa->get_state(ike_sa) == IKE_ESTABLISHED)
	{	/* this is the last response */
		notes_forget(this->notes, ike_sa);
	}
	return TRUE;
}

METHOD(listener_t, ike_state_change, bool,
	private_listener_t *this, ike_sa_t *ike_sa, ike_sa_state_t state)
{
	ike_sa_id_t *id = ike_sa->get_id(ike_sa);

	/* IKE_CREATED: begins again with other SPIs; a responder's notes are needed until its last response is built */
	if (state == IKE_CREATED || state == IKE_DESTROYING ||
		(state == IKE_ESTABLISHED && id->is_initiator(id)))
	{
		notes_forget(this->notes, ike_sa);
	}
	return TRUE;
}

/** TRUE unless the peer authenticated itself in this round by a certificate that the ledger does not answer for. */
static bool round_is_good(ike_sa_t *ike_sa, notes_t *notes)
{
	auth_cfg_t *auth = ike_sa->get_auth_cfg(ike_sa, FALSE);
	certificate_t *used = auth->get(auth, AUTH_RULE_SUBJECT_CERT);

	if (used && notes && notes->trusted && used->equals(used, notes->judged))
	{
		notes->authorised = TRUE;
		return TRUE;
	}
	return !used;
}

/** Called after each round, and at the end, when one round at least must have been by the ledger. */
METHOD(listener_t, authorize, bool,
	private_listener_t *this, ike_sa_t *ike_sa, bool final, bool *success)
{
	notes_t *notes = notes_get(this->notes, ike_sa);
	bool good = final ? notes && notes->authorised
					  : round_is_good(ike_sa, notes);

	if (!good && settings_enforce())
	{
		DBG1(DBG_CFG, "voice-dpki: '%Y' refused: not-by-ledger: it did not "
			 "authenticate itself by a certificate that the ledger answers for",
			 ike_sa->get_other_id(ike_sa));
		*success = FALSE;
	}
	else if (final && notes && notes->authorised)
	{
		DBG1(DBG_CFG, "voice-dpki: '%Y' trusted: it authenticated itself by the "
			 "certificate that the ledger answers for",
			 ike_sa->get_other_id(ike_sa));
	}
	return TRUE;
}

listener_t *ike_listener_create(notes_table_t *notes)
{
	private_listener_t *this;

	INIT(this,
		.public = {
			.message = _message,
			.ike_state_change = _ike_state_change,
			.authorize = _authorize,
		},
		.notes = notes,
	);
	return &this->public;
}

void ike_listener_destroy(listener_t *listener)
{
	free(listener);
}
