/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * The credential set that makes exactly the certificate in the current IKE_AUTH trusted, if the agent says so.
 */
#ifndef VOICE_DPKI_CREDENTIALS_H_
#define VOICE_DPKI_CREDENTIALS_H_

#include <credentials/credential_set.h>

#include "notes.h"

credential_set_t *credentials_create(notes_table_t *notes);

void credentials_destroy(credential_set_t *set);

#endif
