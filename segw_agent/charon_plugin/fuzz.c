/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * Drives what the plugin reads, built with AddressSanitizer: IKE_AUTH messages with malformed CERT and notify
 * payloads, from charon's own parser to the request for the agent; and answers of an agent that went wrong.
 *
 *   fuzz SEED ROUNDS CERTIFICATE.der
 *
 * Prints the number of rounds, in how many a certificate parsed, and in how many an answer did.
 */
#include <stdio.h>

#include <daemon.h>
#include <encoding/parser.h>
#include <encoding/payloads/cert_payload.h>

#include "evidence.h"
#include "inquiry.h"

#define INTEGRITY_INFO 40970
#define LEDGER_ANSWER 40971
#define MAX_PAYLOADS 6
#define PLUGINS "random nonce x509 pubkey pkcs1 pem openssl"

static uint32_t seed;
/** Messages with a certificate that parsed, and answers that were well formed. */
static u_long certificates, answers;

/** Random numbers that are the same for the same seed (xorshift). */
static uint32_t draw(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % below;
}

/** Octets that are now and then those of a certificate, whole, cut short or with octets of it changed. */
static chunk_t draw_octets(chunk_t certificate)
{
	static const size_t sizes[] = { 0, 1, 3, 64, 700, MAX_INTEGRITY_INFO,
		MAX_INTEGRITY_INFO + 1, MAX_CERTIFICATE + 1, MAX_LEDGER_ANSWER + 1 };
	chunk_t octets;
	size_t i;

	if (draw(2))
	{
		octets = chunk_clone(certificate);
		for (i = draw(4); i > 0; i--)
		{
			octets.ptr[draw(octets.len)] = draw(256);
		}
		octets.len = draw(4) ? octets.len : draw(octets.len);
		return octets;
	}
	octets = chunk_alloc(sizes[draw(countof(sizes))]);
	for (i = 0; i < octets.len; i++)
	{
		octets.ptr[i] = draw(256);
	}
	return octets;
}

/** Write a payload as on the wire, its header now and then with a length that is not true. */
static chunk_t draw_payload(bool cert, chunk_t certificate)
{
	uint16_t types[] = { INTEGRITY_INFO, LEDGER_ANSWER, 16384, draw(65536) };
	uint16_t type = htons(types[draw(countof(types))]);
	uint8_t encoding = draw(4) ? ENC_X509_SIGNATURE : draw(256);
	uint8_t notify[] = { 0, draw(8) ? 0 : draw(256), type & 0xff, type >> 8 };
	uint8_t header[] = { 0, 0, 0, 0 };
	chunk_t octets = draw_octets(certificate), payload;

	payload = cert
		? chunk_cat("ccm", chunk_from_thing(header), chunk_from_thing(encoding),
					octets)
		: chunk_cat("ccm", chunk_from_thing(header), chunk_from_thing(notify),
					octets);
	htoun16(payload.ptr + 2, draw(16) ? payload.len : draw(65536));
	payload.len = draw(32) ? payload.len : draw(payload.len + 1);
	return payload;
}

/** Ask for what was read, as the plugin does. */
static void inquire(message_t *message, certificate_t *certificate)
{
	evidence_t evidence = evidence_read(message, (notify_numbers_t){
		.integrity_info = INTEGRITY_INFO,
		.ledger_answer = LEDGER_ANSWER,
	});
	inquiry_t inquiry = {
		.operation = OPERATION_JUDGE,
		.side = SIDE_RESPONDER,
		.integrity_info = evidence.integrity_info,
		.ledger_answer = evidence.ledger_answer,
	};
	chunk_t request;

	if (certificate && certificate->get_encoding(certificate, CERT_ASN1_DER,
												 &inquiry.certificate))
	{
		inquiry.identity = inquiry.certificate;
		inquiry.identity.len = draw(min(inquiry.identity.len, 1100));
		request = inquiry_encode(&inquiry);
		chunk_free(&request);
		chunk_free(&inquiry.certificate);
	}
	evidence_clear(&evidence);
}

/** Parse payloads as charon does, into a message; the first certificate that parses is the peer's. */
static void fuzz_message(chunk_t sample)
{
	message_t *message = message_create(IKEV2_MAJOR_VERSION, IKEV2_MINOR_VERSION);
	certificate_t *certificate = NULL;
	cert_payload_t *cert_payload;
	payload_t *payload;
	parser_t *parser;
	chunk_t octets;
	int i;

	message->set_exchange_type(message, IKE_AUTH);
	for (i = draw(MAX_PAYLOADS) + 1; i > 0; i--)
	{
		bool cert = draw(2);

		octets = draw_payload(cert, sample);
		parser = parser_create(octets);
		if (parser->parse_payload(parser, cert ? PLV2_CERTIFICATE : PLV2_NOTIFY,
								  &payload) != SUCCESS)
		{
			/* charon drops the whole message */
		}
		else if (payload->verify(payload) != SUCCESS)
		{
			payload->destroy(payload);
		}
		else
		{
			cert_payload = (cert_payload_t*)payload;
			if (cert && !certificate && cert_payload->get_cert_encoding(
									cert_payload) == ENC_X509_SIGNATURE)
			{
				certificate = cert_payload->get_cert(cert_payload);
			}
			message->add_payload(message, payload);
		}
		parser->destroy(parser);
		chunk_free(&octets);
	}
	certificates += certificate != NULL;
	inquire(message, certificate);
	DESTROY_IF(certificate);
	message->destroy(message);
}

/** Parse an answer that is well formed but for a few octets. */
static void fuzz_answer(chunk_t sample)
{
	chunk_t code = chunk_from_str("revoked");
	chunk_t text = draw_octets(sample), content = draw_octets(sample), body;
	uint8_t head[] = { INQUIRY_VERSION, draw(3), 16, 0, code.len };
	uint8_t second[] = { 17, text.len >> 8, text.len };
	uint8_t third[] = { 18 + draw(2), content.len >> 8, content.len };
	answer_t answer;
	size_t i;

	for (i = 0; draw(2) && i < text.len; i++)
	{
		text.ptr[i] = 'a' + text.ptr[i] % 26;
	}
	body = chunk_cat("cccmcm", chunk_from_thing(head), code,
					 chunk_from_thing(second), text, chunk_from_thing(third),
					 content);
	for (i = draw(4); i > 1; i--)
	{
		body.ptr[draw(body.len)] = draw(256);
	}
	body.len = draw(4) ? body.len : draw(body.len + 1);
	answers += answer_parse(body, &answer);
	chunk_free(&body);
}

int main(int argc, char *argv[])
{
	chunk_t *sample;
	long rounds, i;

	if (argc != 4)
	{
		fprintf(stderr, "usage: fuzz SEED ROUNDS CERTIFICATE.der\n");
		return 2;
	}
	seed = atoi(argv[1]) | 1;
	rounds = atol(argv[2]);
	/* no logs: all that is parsed here is malformed */
	dbg_default_set_level(-1);
	if (!library_init(NULL, "fuzz") || !libcharon_init() ||
		!lib->plugins->load(lib->plugins, PLUGINS))
	{
		return 2;
	}
	sample = chunk_map(argv[3], FALSE);
	if (!sample)
	{
		perror(argv[3]);
		return 2;
	}
	for (i = 0; i < rounds; i++)
	{
		fuzz_message(*sample);
		fuzz_answer(*sample);
	}
	chunk_unmap(sample);
	libcharon_deinit();
	library_deinit();
	printf("%ld %lu %lu\n", rounds, certificates, answers);
	return 0;
}
