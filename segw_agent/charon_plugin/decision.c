/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 */
#include "decision.h"

#include <daemon.h>
#include <time.h>

#include "agent.h"
#include "inquiry.h"
#include "settings.h"

static void refuse(answer_t *answer, char *code, char *sentence)
{
	*answer = (answer_t){};
	strncpy(answer->code, code, MAX_CODE);
	strncpy(answer->sentence, sentence, MAX_SENTENCE);
}

/** Send a request and read the answer, whose chunks point into `body`; whatever goes wrong is a negative answer. */
static void ask(chunk_t request, answer_t *answer, chunk_t *body)
{
	switch (agent_ask(settings_socket(), settings_deadline_ms(), request, body))
	{
		case AGENT_ANSWERED:
			if (!answer_parse(*body, answer))
			{
				refuse(answer, "agent-malformed",
					   "the agent's answer cannot be understood");
			}
			break;
		case AGENT_AWAY:
			refuse(answer, "agent-away", "the agent cannot be reached");
			break;
		case AGENT_LATE:
			refuse(answer, "agent-late",
				   "the agent did not answer within the deadline");
			break;
	}
}

/** Complete a request by what it says of the IKE SA, and ask. */
static void inquire(ike_sa_t *ike_sa, inquiry_t *inquiry, answer_t *answer,
					chunk_t *body)
{
	ike_sa_id_t *id = ike_sa->get_id(ike_sa);
	char *name = ike_sa->get_name(ike_sa);
	chunk_t request;

	inquiry->side = id->is_initiator(id) ? SIDE_INITIATOR : SIDE_RESPONDER;
	inquiry->policy = settings_policy();
	inquiry->unique_id = ike_sa->get_unique_id(ike_sa);
	inquiry->spi_i = id->get_initiator_spi(id);
	inquiry->spi_r = id->get_responder_spi(id);
	inquiry->connection = chunk_create((u_char*)name,
									   strnlen(name, MAX_CONNECTION));
	*body = chunk_empty;
	request = inquiry_encode(inquiry);
	if (request.len)
	{
		ask(request, answer, body);
		chunk_free(&request);
	}
	else
	{
		refuse(answer, "too-large",
			   "the identity or the certificate is larger than its bound");
	}
}

/** What is refused without asking. */
static bool refuse_at_once(ike_sa_t *ike_sa, notes_t *notes, answer_t *answer)
{
	identification_t *identity = ike_sa->get_other_id(ike_sa);
	ike_sa_id_t *id = ike_sa->get_id(ike_sa);

	if (notes->evidence.malformed)
	{
		refuse(answer, "malformed",
			   "a notify for the ledger came twice, or is larger than its bound");
		return TRUE;
	}
	if (identity->contains_wildcards(identity) ||
		notes->judged->has_subject(notes->judged, identity) != ID_MATCH_PERFECT)
	{
		refuse(answer, "identity", "the identity is not the certificate's");
		return TRUE;
	}
	if (!notes->evidence.integrity_info.ptr && !id->is_initiator(id) &&
		settings_policy() == POLICY_REQUIRE)
	{
		refuse(answer, "integrity-missing",
			   "N(INTEGRITY_INFO) is required and missing");
		return TRUE;
	}
	return FALSE;
}

/** Ask about the certificate that is to be judged. */
static void inquire_peer(ike_sa_t *ike_sa, notes_t *notes, answer_t *answer)
{
	identification_t *identity = ike_sa->get_other_id(ike_sa);
	uint8_t type = identity->get_type(identity);
	inquiry_t inquiry = {
		.operation = OPERATION_JUDGE,
		.integrity_info = notes->evidence.integrity_info,
		.ledger_answer = notes->evidence.ledger_answer,
	};
	chunk_t body;

	if (!notes->judged->get_encoding(notes->judged, CERT_ASN1_DER,
									 &inquiry.certificate))
	{
		refuse(answer, "malformed", "the certificate has no encoding");
		return;
	}
	inquiry.identity = chunk_cat("cc", chunk_from_thing(type),
								 identity->get_encoding(identity));
	inquire(ike_sa, &inquiry, answer, &body);
	chunk_free(&inquiry.identity);
	chunk_free(&inquiry.certificate);
	chunk_free(&body);
}

static int64_t now_us()
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void decide(ike_sa_t *ike_sa, notes_t *notes, certificate_t *certificate)
{
	int64_t begin_us = now_us();
	answer_t answer;

	DESTROY_IF(notes->judged);
	notes->judged = certificate->get_ref(certificate);
	if (!refuse_at_once(ike_sa, notes, &answer))
	{
		inquire_peer(ike_sa, notes, &answer);
	}
	notes->trusted = answer.positive;
	DBG1(DBG_CFG, "voice-dpki: '%Y' %s: %s: %s (%u us)",
		 ike_sa->get_other_id(ike_sa), answer.positive ? "vouched for" : "refused",
		 answer.code, answer.sentence, (u_int)(now_us() - begin_us));
}

void get_statement(ike_sa_t *ike_sa, notes_t *notes, certificate_t *own)
{
	inquiry_t inquiry = { .operation = OPERATION_STATE };
	answer_t answer;
	chunk_t body;

	evidence_clear(&notes->statement);
	DESTROY_IF(notes->own);
	notes->own = own->get_ref(own);
	if (!own->get_encoding(own, CERT_ASN1_DER, &inquiry.certificate))
	{
		return;
	}
	inquire(ike_sa, &inquiry, &answer, &body);
	if (answer.positive && answer.integrity_info.ptr)
	{
		notes->statement.integrity_info = clone_item(answer.integrity_info);
	}
	if (answer.positive && answer.ledger_answer.ptr)
	{
		notes->statement.ledger_answer = clone_item(answer.ledger_answer);
	}
	DBG2(DBG_CFG, "voice-dpki: statement for '%Y': %s: %s",
		 own->get_subject(own), answer.code, answer.sentence);
	chunk_free(&inquiry.certificate);
	chunk_free(&body);
}
