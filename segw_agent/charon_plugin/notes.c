/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 */
#include "notes.h"

#include <collections/hashtable.h>
#include <threading/mutex.h>

struct notes_table_t {
	/** notes_t by the ike_sa_t that they belong to. */
	hashtable_t *notes;
	mutex_t *mutex;
};

static void notes_destroy(notes_t *notes)
{
	evidence_clear(&notes->evidence);
	evidence_clear(&notes->statement);
	DESTROY_IF(notes->judged);
	DESTROY_IF(notes->own);
	free(notes);
}

notes_table_t *notes_table_create()
{
	notes_table_t *table;

	INIT(table,
		.notes = hashtable_create(hashtable_hash_ptr, hashtable_equals_ptr, 32),
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);
	return table;
}

void notes_table_destroy(notes_table_t *table)
{
	enumerator_t *enumerator;
	notes_t *notes;

	enumerator = table->notes->create_enumerator(table->notes);
	while (enumerator->enumerate(enumerator, NULL, &notes))
	{
		notes_destroy(notes);
	}
	enumerator->destroy(enumerator);
	table->notes->destroy(table->notes);
	table->mutex->destroy(table->mutex);
	free(table);
}

notes_t *notes_get(notes_table_t *table, ike_sa_t *ike_sa)
{
	notes_t *notes;

	table->mutex->lock(table->mutex);
	notes = table->notes->get(table->notes, ike_sa);
	table->mutex->unlock(table->mutex);
	return notes;
}

notes_t *notes_make(notes_table_t *table, ike_sa_t *ike_sa)
{
	notes_t *notes;

	table->mutex->lock(table->mutex);
	notes = table->notes->get(table->notes, ike_sa);
	if (!notes)
	{
		INIT(notes);
		table->notes->put(table->notes, ike_sa, notes);
	}
	table->mutex->unlock(table->mutex);
	return notes;
}

void notes_forget(notes_table_t *table, ike_sa_t *ike_sa)
{
	notes_t *notes;

	table->mutex->lock(table->mutex);
	notes = table->notes->remove(table->notes, ike_sa);
	table->mutex->unlock(table->mutex);
	if (notes)
	{
		notes_destroy(notes);
	}
}
