/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * The listener that takes notes of IKE_AUTH messages, and has the last word on whether an IKE SA is authorised.
 */
#ifndef VOICE_DPKI_IKE_LISTENER_H_
#define VOICE_DPKI_IKE_LISTENER_H_

#include <bus/listeners/listener.h>

#include "notes.h"

listener_t *ike_listener_create(notes_table_t *notes);

void ike_listener_destroy(listener_t *listener);

#endif
