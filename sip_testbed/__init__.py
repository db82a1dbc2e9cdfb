"""Two operators' domains on one machine: user agents, proxies, scenarios, reports."""
