"""SIP on sockets: transports, connections and flows, endpoints, user agents and their calls."""
