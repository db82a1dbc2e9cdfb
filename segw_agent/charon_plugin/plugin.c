/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 *
 * The plugin: ties the listener and the credential set to charon.
 */
#include <daemon.h>
#include <plugins/plugin.h>

#include "credentials.h"
#include "ike_listener.h"
#include "notes.h"

typedef struct {
	plugin_t public;
	notes_table_t *notes;
	listener_t *listener;
	credential_set_t *credentials;
} private_plugin_t;

METHOD(plugin_t, get_name, char*,
	private_plugin_t *this)
{
	return "voice-dpki";
}

static bool plug(private_plugin_t *this, plugin_feature_t *feature,
				 bool reg, void *data)
{
	if (reg)
	{
		lib->credmgr->add_set(lib->credmgr, this->credentials);
		charon->bus->add_listener(charon->bus, this->listener);
	}
	else
	{
		charon->bus->remove_listener(charon->bus, this->listener);
		lib->credmgr->remove_set(lib->credmgr, this->credentials);
	}
	return TRUE;
}

METHOD(plugin_t, get_features, int,
	private_plugin_t *this, plugin_feature_t *features[])
{
	static plugin_feature_t provided[] = {
		PLUGIN_CALLBACK((plugin_feature_callback_t)plug, NULL),
			PLUGIN_PROVIDE(CUSTOM, "voice-dpki"),
	};
	*features = provided;
	return countof(provided);
}

METHOD(plugin_t, destroy, void,
	private_plugin_t *this)
{
	ike_listener_destroy(this->listener);
	credentials_destroy(this->credentials);
	notes_table_destroy(this->notes);
	free(this);
}

/** The one symbol that charon looks for. */
__attribute__((visibility("default"))) plugin_t *voice_dpki_plugin_create()
{
	private_plugin_t *this;

	INIT(this,
		.public = {
			.get_name = _get_name,
			.get_features = _get_features,
			.destroy = _destroy,
		},
		.notes = notes_table_create(),
	);
	this->listener = ike_listener_create(this->notes);
	this->credentials = credentials_create(this->notes);
	return &this->public;
}
