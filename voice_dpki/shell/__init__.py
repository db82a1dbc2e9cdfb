"""The common shell of all services around their cores: HTTP, configuration, logs, metrics, command line."""
