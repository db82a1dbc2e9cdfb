/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * charon looks credentials up without its bus locked, in the thread that works on the IKE SA: here is where the agent
 * can be waited for.
 */
#include "credentials.h"

#include <daemon.h>

#include "decision.h"

typedef struct {
	credential_set_t public;
	notes_table_t *notes;
} private_credentials_t;

/** The IKEv2 SA that this thread is authenticating, or NULL. */
static ike_sa_t *get_connecting()
{
	ike_sa_t *ike_sa = charon->bus->get_sa(charon->bus);

	if (ike_sa && ike_sa->get_version(ike_sa) == IKEV2 &&
		ike_sa->get_state(ike_sa) == IKE_CONNECTING)
	{
		return ike_sa;
	}
	return NULL;
}

/** TRUE if the certificate is of the kinds that are looked for. */
static bool fits(certificate_t *certificate, certificate_type_t type,
				 key_type_t key)
{
	public_key_t *public;
	bool good;

	if (type != CERT_ANY && type != certificate->get_type(certificate))
	{
		return FALSE;
	}
	public = certificate->get_public_key(certificate);
	good = public && (key == KEY_ANY || key == public->get_type(public));
	DESTROY_IF(public);
	return good;
}

METHOD(credential_set_t, create_cert_enumerator, enumerator_t*,
	private_credentials_t *this, certificate_type_t type, key_type_t key,
	identification_t *id, bool trusted)
{
	ike_sa_t *ike_sa = trusted && id ? get_connecting() : NULL;
	notes_t *notes = ike_sa ? notes_get(this->notes, ike_sa) : NULL;
	certificate_t *certificate;
	auth_cfg_t *auth;

	if (!notes || !id->equals(id, ike_sa->get_other_id(ike_sa)))
	{
		return NULL;
	}
	auth = ike_sa->get_auth_cfg(ike_sa, FALSE);
	certificate = auth->get(auth, AUTH_HELPER_SUBJECT_CERT);
	if (!certificate)
	{
		DBG1(DBG_CFG, "voice-dpki: '%Y' refused: certificate-missing: IKE_AUTH "
			 "carries no X.509 certificate", id);
		return NULL;
	}
	if (!fits(certificate, type, key))
	{
		return NULL;
	}
	if (notes->judged != certificate)
	{
		decide(ike_sa, notes, certificate);
	}
	return notes->trusted ? enumerator_create_single(certificate, NULL) : NULL;
}

/** Find the certificate of ours, in the connection's configuration, that has the key which is looked for. */
static certificate_t *find_own(ike_sa_t *ike_sa, chunk_t fingerprint)
{
	auth_cfg_t *auth = ike_sa->get_auth_cfg(ike_sa, TRUE);
	certificate_t *certificate, *found = NULL;
	enumerator_t *enumerator;
	public_key_t *public;
	auth_rule_t rule;

	enumerator = auth->create_enumerator(auth);
	while (!found && enumerator->enumerate(enumerator, &rule, &certificate))
	{
		if (rule == AUTH_RULE_SUBJECT_CERT)
		{
			public = certificate->get_public_key(certificate);
			if (public && public->has_fingerprint(public, fingerprint))
			{
				found = certificate;
			}
			DESTROY_IF(public);
		}
	}
	enumerator->destroy(enumerator);
	return found;
}

/**
 * Provides no key: this is the moment when charon looks for the key of the certificate that it is about to send, and
 * has not built the message yet.
 */
METHOD(credential_set_t, create_private_enumerator, enumerator_t*,
	private_credentials_t *this, key_type_t type, identification_t *id)
{
	ike_sa_t *ike_sa = get_connecting();
	certificate_t *own;
	notes_t *notes;

	if (!ike_sa || !id || id->get_type(id) != ID_KEY_ID)
	{
		return NULL;
	}
	own = find_own(ike_sa, id->get_encoding(id));
	if (own)
	{
		notes = notes_make(this->notes, ike_sa);
		if (notes->own != own)
		{
			get_statement(ike_sa, notes, own);
		}
	}
	return NULL;
}

credential_set_t *credentials_create(notes_table_t *notes)
{
	private_credentials_t *this;

	INIT(this,
		.public = {
			.create_private_enumerator = _create_private_enumerator,
			.create_cert_enumerator = _create_cert_enumerator,
			.create_shared_enumerator = (void*)return_null,
			.create_cdp_enumerator = (void*)return_null,
			.cache_cert = (void*)nop,
		},
		.notes = notes,
	);
	return &this->public;
}

void credentials_destroy(credential_set_t *set)
{
	free(set);
}
