/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 */
#include "evidence.h"

#include <encoding/payloads/notify_payload.h>

#include "inquiry.h"

chunk_t clone_item(chunk_t item)
{
	chunk_t copy = chunk_create(malloc(item.len + 1), item.len);

	if (item.len)
	{
		memcpy(copy.ptr, item.ptr, item.len);
	}
	return copy;
}

void evidence_clear(evidence_t *evidence)
{
	chunk_free(&evidence->integrity_info);
	chunk_free(&evidence->ledger_answer);
	evidence->malformed = FALSE;
}

/** Take one notify's content, if it is the first and within its bound. */
static bool take(notify_payload_t *notify, size_t max, chunk_t *content)
{
	chunk_t data = notify->get_notification_data(notify);

	if (content->ptr || data.len > max)
	{
		return FALSE;
	}
	*content = clone_item(data);
	return TRUE;
}

evidence_t evidence_read(message_t *message, notify_numbers_t numbers)
{
	evidence_t evidence = {};
	enumerator_t *enumerator;
	notify_payload_t *notify;
	payload_t *payload;
	uint16_t type;
	bool good = TRUE;

	enumerator = message->create_payload_enumerator(message);
	while (good && enumerator->enumerate(enumerator, &payload))
	{
		if (payload->get_type(payload) != PLV2_NOTIFY)
		{
			continue;
		}
		notify = (notify_payload_t*)payload;
		type = notify->get_notify_type(notify);
		if (type && type == numbers.integrity_info)
		{
			good = take(notify, MAX_INTEGRITY_INFO, &evidence.integrity_info);
		}
		else if (type && type == numbers.ledger_answer)
		{
			good = take(notify, MAX_LEDGER_ANSWER, &evidence.ledger_answer);
		}
	}
	enumerator->destroy(enumerator);
	if (!good)
	{
		evidence_clear(&evidence);
		evidence.malformed = TRUE;
	}
	return evidence;
}
