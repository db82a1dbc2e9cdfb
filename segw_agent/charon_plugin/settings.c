/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 */
#include "settings.h"

#include <library.h>

#define SETTING(key) "%s.plugins.voice-dpki." key
/** Debian's AppArmor profile lets charon use sockets of this form, and no others in /run. */
#define DEFAULT_SOCKET "/run/charon.segw-agent"
#define DEFAULT_DEADLINE_MS 2500
#define MAX_DEADLINE_MS 60000
#define DEFAULT_INTEGRITY_INFO 40970
#define DEFAULT_LEDGER_ANSWER 40971
/** Status types for private use begin here (RFC 7296, section 3.10.1). */
#define FIRST_PRIVATE_STATUS 40960

char *settings_socket()
{
	return lib->settings->get_str(lib->settings, SETTING("socket"),
								  DEFAULT_SOCKET, lib->ns);
}

u_int settings_deadline_ms()
{
	int deadline_ms = lib->settings->get_int(lib->settings,
						SETTING("deadline_ms"), DEFAULT_DEADLINE_MS, lib->ns);

	return max(1, min(deadline_ms, MAX_DEADLINE_MS));
}

static uint16_t get_number(char *setting, int fallback)
{
	int number = lib->settings->get_int(lib->settings, setting, fallback,
										lib->ns);

	return number >= FIRST_PRIVATE_STATUS && number <= UINT16_MAX ? number : 0;
}

notify_numbers_t settings_numbers()
{
	return (notify_numbers_t){
		.integrity_info = get_number(SETTING("integrity_info"),
									 DEFAULT_INTEGRITY_INFO),
		.ledger_answer = get_number(SETTING("ledger_answer"),
									DEFAULT_LEDGER_ANSWER),
	};
}

policy_t settings_policy()
{
	char *word = lib->settings->get_str(lib->settings,
								SETTING("integrity_policy"), "check", lib->ns);

	return streq(word, "ignore") ? POLICY_IGNORE :
		   streq(word, "check") ? POLICY_CHECK : POLICY_REQUIRE;
}

bool settings_enforce()
{
	return lib->settings->get_bool(lib->settings, SETTING("enforce"), TRUE,
								   lib->ns);
}
