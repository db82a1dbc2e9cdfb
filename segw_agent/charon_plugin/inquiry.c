/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 */
#include "inquiry.h"

#include <bio/bio_reader.h>
#include <bio/bio_writer.h>

enum {
	TAG_IDENTITY = 1,
	TAG_CERTIFICATE = 2,
	TAG_INTEGRITY_INFO = 3,
	TAG_LEDGER_ANSWER = 4,
	TAG_CONNECTION = 5,
	TAG_CODE = 16,
	TAG_SENTENCE = 17,
	TAG_INTEGRITY_INFO_TO_SEND = 18,
	TAG_LEDGER_ANSWER_TO_SEND = 19,
};

chunk_t inquiry_encode(const inquiry_t *inquiry)
{
	const struct {
		uint8_t tag;
		chunk_t value;
		size_t max;
	} items[] = {
		{ TAG_IDENTITY, inquiry->identity, MAX_IDENTITY },
		{ TAG_CERTIFICATE, inquiry->certificate, MAX_CERTIFICATE },
		{ TAG_INTEGRITY_INFO, inquiry->integrity_info, MAX_INTEGRITY_INFO },
		{ TAG_LEDGER_ANSWER, inquiry->ledger_answer, MAX_LEDGER_ANSWER },
		{ TAG_CONNECTION, inquiry->connection, MAX_CONNECTION },
	};
	bio_writer_t *writer;
	bool good = TRUE;
	chunk_t frame;
	int i;

	writer = bio_writer_create(2048);
	writer->write_uint8(writer, INQUIRY_VERSION);
	writer->write_uint8(writer, inquiry->operation);
	writer->write_uint8(writer, inquiry->side);
	writer->write_uint8(writer, inquiry->policy);
	writer->write_uint32(writer, inquiry->unique_id);
	writer->write_data(writer, chunk_from_thing(inquiry->spi_i));
	writer->write_data(writer, chunk_from_thing(inquiry->spi_r));
	for (i = 0; i < countof(items); i++)
	{
		good = good && items[i].value.len <= items[i].max;
		if (good && items[i].value.ptr)
		{
			writer->write_uint8(writer, items[i].tag);
			writer->write_data16(writer, items[i].value);
		}
	}
	writer->wrap16(writer);
	frame = good ? writer->extract_buf(writer) : chunk_empty;
	writer->destroy(writer);
	return frame;
}

/** Copy text that cannot forge a line of a log. */
static bool take_text(chunk_t value, size_t max, char *text)
{
	size_t i;

	if (value.len < 1 || value.len > max)
	{
		return FALSE;
	}
	for (i = 0; i < value.len; i++)
	{
		if (value.ptr[i] < 0x20 || value.ptr[i] == 0x7f)
		{
			return FALSE;
		}
		text[i] = value.ptr[i];
	}
	text[i] = '\0';
	return TRUE;
}

/** Take one item into the answer. */
static bool take_item(uint8_t tag, chunk_t value, answer_t *answer)
{
	if (!value.len)
	{	/* empty, but present */
		value = chunk_create((u_char*)"", 0);
	}
	switch (tag)
	{
		case TAG_CODE:
			return take_text(value, MAX_CODE, answer->code);
		case TAG_SENTENCE:
			return take_text(value, MAX_SENTENCE, answer->sentence);
		case TAG_INTEGRITY_INFO_TO_SEND:
			answer->integrity_info = value;
			return value.len <= MAX_INTEGRITY_INFO;
		case TAG_LEDGER_ANSWER_TO_SEND:
			answer->ledger_answer = value;
			return value.len <= MAX_LEDGER_ANSWER;
		default:
			return FALSE;
	}
}

bool answer_parse(chunk_t body, answer_t *answer)
{
	bio_reader_t *reader;
	uint8_t version, verdict, tag, last = 0;
	chunk_t value;
	bool good;

	*answer = (answer_t){};
	reader = bio_reader_create(body);
	good = reader->read_uint8(reader, &version) && version == INQUIRY_VERSION &&
		   reader->read_uint8(reader, &verdict) && verdict <= 1;
	while (good && reader->remaining(reader))
	{
		good = reader->read_uint8(reader, &tag) && tag > last &&
			   reader->read_data16(reader, &value) &&
			   take_item(tag, value, answer);
		last = tag;
	}
	reader->destroy(reader);
	if (!good || !answer->code[0] || !answer->sentence[0])
	{
		*answer = (answer_t){};
		return FALSE;
	}
	answer->positive = verdict == 1;
	return TRUE;
}
