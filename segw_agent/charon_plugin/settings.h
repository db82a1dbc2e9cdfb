/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * charon.plugins.voice-dpki.* of strongswan.conf, read when needed: `swanctl --reload-settings` changes them.
 */
#ifndef VOICE_DPKI_SETTINGS_H_
#define VOICE_DPKI_SETTINGS_H_

#include <sys/types.h>

#include "evidence.h"
#include "inquiry.h"

/** Path of the agent's unix socket. */
char *settings_socket();

/** How long an inquiry may take, 1 to 60000. */
u_int settings_deadline_ms();

/** Numbers of the notifies; one that is no private status type turns its notify off. */
notify_numbers_t settings_numbers();

/** The policy on N(INTEGRITY_INFO); a word that is not known is taken for the strictest. */
policy_t settings_policy();

/** Whether an IKE SA that the ledger does not answer for is refused, whatever else charon trusts. */
bool settings_enforce();

#endif
