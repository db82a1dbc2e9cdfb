"""What every service shares around its core: HTTP, configuration, logs, metrics, command line."""
